// The state of the page as the part of its address after #: a link restores it, and so does Back.
//
// Only what differs from how the page opens is written: #head=L23H3&prompt=11&level=word. A name without "=" is that of
// a section.

const NAMED = /^(?:(\w+)\.)?L(\d+)H(\d+)$/;

function parseHead(name) {
  const found = NAMED.exec(name);
  return found && [Number(found[2]), Number(found[3]), found[1] || ''];
}

function formatAddress(now, opening) {
  const changed = Object.entries(now).filter(([key, value]) => value !== null && value !== opening[key]);
  return '#' + changed.map(([key, value]) => key + '=' + encodeURIComponent(value)).join('&');
}

function parseAddress(text) {
  const parts = text.replace(/^#/, '').split('&').filter(Boolean), said = {};
  for (const part of parts) {
    const at = part.indexOf('=');
    try {
      if (at < 0) said.section = decodeURIComponent(part);
      else said[part.slice(0, at)] = decodeURIComponent(part.slice(at + 1));
    } catch { /* what is no address says nothing */ }
  }
  return said;
}

// The state in the words of an address.
function addressOf(state) {
  const { data } = state;
  return {
    tab: state.tab,
    head: data.stacks.length ? named(state.head) : null,
    prompt: String(state.prompt),
    metric: data.metrics.length ? state.metric().name : null,
    score: state.score,
    level: state.view.level,
    special: state.view.special ? 'shown' : 'hidden',
    part: state.view.part,
    sink: state.view.sink ? 'shown' : 'hidden',
    how: state.how,
    row: state.row === null ? null : String(state.row),
    pin: state.pinned && (state.pinned.other ? 'other' : named(state.pinned.head) + '@' + state.pinned.prompt),
  };
}

// Set the state to what an address says; what it does not say is as the page opened, what it says wrong is passed over.
function restore(state, said) {
  const { data } = state;
  const isHead = (head) => head && data.heads.includes(head[1]) && state.stack(head[2]) && state.stack(head[2]).layers.includes(head[0]);
  const isPrompt = (text) => /^\d+$/.test(text) && data.prompts.length > Number(text);
  const head = parseHead(said.head || ''), metric = data.metrics.findIndex(({ name }) => name === said.metric);
  if (isHead(head)) state.head = head;
  if (isPrompt(said.prompt)) state.prompt = Number(said.prompt);
  if (metric >= 0) state.metricIndex = metric;
  if (scoresOf(state).some(({ name }) => name === said.score)) state.score = said.score;
  if (['token', 'word'].includes(said.level)) state.view.level = said.level;
  if (['all', 'AA', 'AB', 'BA', 'BB'].includes(said.part)) state.view.part = said.part;
  state.view.special = said.special !== 'hidden';
  state.view.sink = said.sink !== 'hidden';
  if (['matrix', 'lines', 'values'].includes(said.how)) state.how = said.how;
  state.row = /^\d+$/.test(said.row) ? Number(said.row) : null;
  const [pin, prompt] = (said.pin || '').split('@'), pinned = parseHead(pin);
  state.pinned = said.pin === 'other' && Object.keys(data.others).length ? { other: true } : isHead(pinned) && isPrompt(prompt) ? { head: pinned, prompt: Number(prompt) } : null;
  const section = said.section && document.getElementById(said.section);
  const panel = section && section.closest('[data-tab]');
  state.tab = panel ? panel.dataset.tab : tabsOf().includes(said.tab) ? said.tab : state.tab;
  for (const event of ['metric', 'score', 'view', 'prompt', 'head', 'how', 'pinned', 'tab']) state.tell(event);
  if (section) section.scrollIntoView();
}

// A frame of a notebook has no address of its own.
function followAddress(state) {
  if (window.parent !== window) return;
  const opening = addressOf(state);
  let due = false, shown = location.hash;
  const write = () => {
    due = false;
    const next = formatAddress(addressOf(state), opening);
    if (next === shown || (next === '#' && !shown)) return;
    shown = next;
    history.pushState(null, '', next);
  };
  const read = () => {
    shown = location.hash;
    restore(state, { ...opening, ...parseAddress(shown) });
    due = true;  // what was restored stands there already
    queueMicrotask(() => { due = false; });
  };
  for (const event of ['metric', 'score', 'view', 'prompt', 'head', 'how', 'row', 'pinned', 'tab']) {
    state.on(event, () => { if (!due) { due = true; queueMicrotask(write); } });
  }
  window.addEventListener('popstate', read);
  window.addEventListener('hashchange', () => { if (location.hash !== shown) read(); });
  if (shown) read();
}
