// The tools of the bar: go to a head or prompt, copy the page's address, list the keys.

const MATCHES = 8;

function mountTools(place, state) {
  const copy = make('button', { type: 'button', class: 'tool', onclick: async () => { copy.textContent = (await copied(location.href)) ? 'Copied' : 'Not copied'; setTimeout(() => { copy.textContent = 'Copy link'; }, 1500); } }, 'Copy link');
  const keys = make('button', { type: 'button', class: 'tool', 'aria-label': 'list the keys', onclick: () => showHelp() }, '?');
  place.append(...(state.data.stacks.length ? [searchBox(state)] : []), copy, keys);
}

// What a text can mean: a head's name, or its beginning; a prompt's number, or words of it. Heads come first.
function matchesOf(text, heads, prompts) {
  const wanted = text.trim().toLowerCase(), number = /^(?:prompt )?(\d+)$/.exec(wanted);
  if (!wanted) return [];
  const named = heads.filter(({ name, roles }) => name.toLowerCase().startsWith(wanted) || roles.some((role) => role.toLowerCase().includes(wanted)));
  const whole = prompts.map((prompt, index) => ({ prompt, index })).filter(({ prompt, index }) => (number ? String(index).startsWith(number[1]) : prompt.toLowerCase().includes(wanted)));
  return [
    ...named.map(({ name, head, roles }) => ({ label: name + (roles.length ? ' · ' + roles.join(', ') : ''), head })),
    ...whole.map(({ prompt, index }) => ({ label: 'prompt ' + index + ': ' + prompt, prompt: index })),
  ].slice(0, MATCHES);
}

function searchBox(state) {
  const heads = headsOf(state).map((head) => ({ head, name: named(head), roles: state.data.rolesOf[named(head)] || [] }));
  const texts = state.data.prompts.map(textOf);
  const list = make('ul', { id: 'found', role: 'listbox', 'aria-label': 'Heads and prompts', hidden: '' });
  const box = make('input', { id: 'search', type: 'search', role: 'combobox', placeholder: 'Go to head or prompt', 'aria-label': 'Go to head or prompt', 'aria-controls': 'found', 'aria-expanded': 'false', autocomplete: 'off', spellcheck: 'false' });
  let matches = [], at = 0;
  const go = (match) => {
    if (!match) return;
    box.value = '';
    fillList();
    box.blur();
    if (match.head) state.open(match.head);
    else { state.setPrompt(match.prompt); state.tell('opened'); }
  };
  const mark = () => [...list.children].forEach((item, index) => item.setAttribute('aria-selected', String(index === at)));
  const fillList = () => {
    matches = matchesOf(box.value, heads, texts);
    at = 0;
    list.hidden = !matches.length;
    box.setAttribute('aria-expanded', String(!list.hidden));
    list.replaceChildren(...matches.map((match) => make('li', { role: 'option', onpointerdown: (event) => { event.preventDefault(); go(match); } }, cut(match.label, 70))));
    mark();
  };
  box.addEventListener('input', fillList);
  box.addEventListener('blur', () => { list.hidden = true; box.setAttribute('aria-expanded', 'false'); });
  box.addEventListener('focus', fillList);
  box.addEventListener('keydown', (event) => {
    if (event.key === 'Enter') { event.preventDefault(); go(matches[at]); }
    if (event.key === 'Escape') { box.value = ''; box.blur(); }
    const by = step(event);
    if (!by || !by[0] || !matches.length) return;
    event.preventDefault();
    at = (at + by[0] + matches.length) % matches.length;
    mark();
  });
  return make('div', { class: 'search', role: 'search' }, box, make('kbd', { 'aria-hidden': 'true' }, '/'), list);
}
