document.querySelectorAll('.sheet').forEach(sheet => {
  const aim = (x, y) => sheet.querySelectorAll('.pane img').forEach(
    img => img.style.transformOrigin = `${100 * x}% ${100 * y}%`);
  sheet.querySelectorAll('.pane').forEach(pane => {
    const at = e => { const r = pane.getBoundingClientRect();
      aim((e.clientX - r.left) / r.width, (e.clientY - r.top) / r.height); };
    pane.addEventListener('click', e => { at(e); sheet.classList.toggle('zoomed'); });
    pane.addEventListener('mousemove', at);
    pane.addEventListener('keydown', e => {
      if (e.key !== 'Enter' && e.key !== ' ') return;
      e.preventDefault(); aim(.5, .5); sheet.classList.toggle('zoomed'); });
  });
});
