// In a frame of a notebook: report the page's height, to which the notebook's page sets the frame (share.js).

(() => {
  if (window.parent === window) return;
  let last = 0;
  const report = () => {
    const height = Math.ceil(document.body.getBoundingClientRect().height);
    if (height === last) return;
    last = height;
    window.parent.postMessage({ attentionHarness: 'height', height }, '*');
  };
  window.addEventListener('message', ({ source, data }) => {
    if (source !== window.parent || !data || data.attentionHarness !== 'measure') return;
    last = 0;
    report();
  });
  new ResizeObserver(report).observe(document.body);
})();
