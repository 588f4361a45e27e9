(() => {
  const kits = (window.attentionHarness ||= {});
  /* kits */
  const frames = () => [...document.querySelectorAll('iframe[title="attention-harness"]')];
  const measure = () => frames().forEach((frame) => frame.contentWindow.postMessage({ attentionHarness: 'measure' }, '*'));
  if (kits.listens) return measure();
  kits.listens = true;
  window.addEventListener('message', ({ source, data }) => {
    const frame = data && data.attentionHarness && frames().find((each) => each.contentWindow === source);
    if (!frame) return;
    if (data.attentionHarness === 'wanted' && Object.hasOwn(kits, data.key)) source.postMessage({ attentionHarness: data.key, scripts: kits[data.key] }, '*');
    if (data.attentionHarness === 'height' && Number.isFinite(data.height)) frame.style.height = Math.min(Math.max(data.height, 40), 6000) + 'px';
  });
  measure();
})();
