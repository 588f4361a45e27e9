// The tabs of a report. Without scripts all panels are shown, one below the other.

function tabsOf() {
  return [...document.querySelectorAll('[data-tab]')].map((panel) => panel.dataset.tab);
}

function mountTabs(state) {
  const panels = [...document.querySelectorAll('[data-tab]')];
  if (!panels.length) return;
  state.tab = panels[0].dataset.tab;
  const links = [...document.querySelectorAll('nav.tabs a')];
  const show = () => {
    for (const panel of panels) panel.hidden = panel.dataset.tab !== state.tab;
    for (const link of links) link.setAttribute('aria-current', link.hash === '#tab-' + state.tab ? 'page' : 'false');
    document.documentElement.dataset.tab = state.tab;
  };
  state.on('tab', show);
  document.addEventListener('click', (event) => {
    const link = event.target.closest && event.target.closest('a[href^="#"]');
    const target = link && document.getElementById(decodeURIComponent(link.hash.slice(1)));
    const panel = target && target.closest('[data-tab]');
    if (!panel || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    if (panel.dataset.tab !== state.tab) { state.set('tab', panel.dataset.tab); window.scrollTo(0, 0); }
    if (target !== panel) target.scrollIntoView();
  });
  const bar = document.querySelector('.bar'); // which is as high as its tabs need
  new ResizeObserver(() => document.documentElement.style.setProperty('--bar', bar.offsetHeight + 'px')).observe(bar);
  show();
}
