const stage = document.querySelector('.stage'), [under, over] = stage.querySelectorAll('img');
const names = document.querySelectorAll('select');
const show = () => { under.src = pictures[names[0].value]; over.src = pictures[names[1].value]; };
names.forEach(n => n.addEventListener('change', show));
stage.addEventListener('pointermove', e => {
  const r = stage.getBoundingClientRect();
  stage.style.setProperty('--split', 100 * (e.clientX - r.left) / r.width + '%');
});
let zoom = 1;
stage.addEventListener('wheel', e => {
  e.preventDefault();
  const r = stage.getBoundingClientRect();
  zoom = Math.min(16, Math.max(1, zoom * (e.deltaY < 0 ? 1.25 : 0.8)));
  stage.style.setProperty('--x', 100 * (e.clientX - r.left) / r.width + '%');
  stage.style.setProperty('--y', 100 * (e.clientY - r.top) / r.height + '%');
  stage.style.setProperty('--zoom', zoom);
  stage.style.imageRendering = zoom > 2 ? 'pixelated' : 'auto';
}, { passive: false });
show();
