// In a view's frame: ask the notebook's page for the scripts until they come. The policy runs them only if their hash is right.

(() => {
  let come = false;
  const notice = document.createElement('p');
  notice.className = 'note';
  const ask = () => { if (!come) window.parent.postMessage({ attentionHarness: 'wanted', key: '$key' }, '*'); };
  const add = (text, attributes) => document.body.append(Object.assign(document.createElement('script'), { textContent: text, ...attributes }));
  window.addEventListener('message', ({ source, data }) => {
    if (come || source !== window.parent || !data || data.attentionHarness !== '$key') return;
    come = true;
    notice.remove();
    add(data.scripts.circuitsvis, { type: 'application/json', id: 'circuitsvis' });
    add(data.scripts.code, {});
  });
  ask();
  const asking = setInterval(() => (come ? clearInterval(asking) : ask()), 400);
  setTimeout(() => {
    if (come) return;
    notice.textContent = 'This view waits for its script, which is in the output of the cell that showed the first view. Scroll to it, or restart the kernel and run the cells again.';
    document.body.prepend(notice);
  }, 3000);
})();
