const stage = document.querySelector('.stage'), [under, over] = stage.querySelectorAll('img');
const names = document.querySelectorAll('select');
names[1].value = 1;
const show = () => { under.src = pictures[names[0].value]; over.src = pictures[names[1].value]; };
names.forEach(n => n.addEventListener('change', show));
let split = 50, zoom = 1;
const slide = share => {
  split = Math.min(100, Math.max(0, share));
  stage.style.setProperty('--split', split + '%');
  stage.setAttribute('aria-valuenow', Math.round(split));
};
const magnify = (factor, x, y) => {  // whether anything changed
  const wanted = Math.min(16, Math.max(1, zoom * factor));
  if (wanted === zoom) return false;
  zoom = wanted;
  stage.style.setProperty('--x', 100 * x + '%');
  stage.style.setProperty('--y', 100 * y + '%');
  stage.style.setProperty('--zoom', zoom);
  stage.style.imageRendering = zoom > 2 ? 'pixelated' : 'auto';
  return true;
};
stage.addEventListener('pointermove', e => {
  const r = stage.getBoundingClientRect();
  slide(100 * (e.clientX - r.left) / r.width);
});
stage.addEventListener('wheel', e => {  // at the least zoom the page scrolls on
  const r = stage.getBoundingClientRect();
  const x = (e.clientX - r.left) / r.width, y = (e.clientY - r.top) / r.height;
  if (magnify(e.deltaY < 0 ? 1.25 : 0.8, x, y)) e.preventDefault();
}, { passive: false });
stage.addEventListener('keydown', e => {
  const step = { ArrowLeft: -2, ArrowRight: 2 }[e.key], factor = { '+': 1.25, '-': 0.8 }[e.key];
  if (e.ctrlKey || e.metaKey || !(step || factor)) return;
  e.preventDefault();
  if (step) slide(split + step); else magnify(factor, split / 100, .5);
});
show();
