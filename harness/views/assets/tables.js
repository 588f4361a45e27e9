// Every table of numbers can be copied (as tab-separated text) and saved (as CSV).

function withTools(table, name) {
  const status = make('span', { class: 'status', role: 'status' });
  const copy = make('button', { type: 'button', class: 'tool', onclick: async () => { status.textContent = (await copied(asText(table, '\t'))) ? 'copied' : 'could not be copied'; } }, 'Copy');
  const save = make('button', { type: 'button', class: 'tool', onclick: () => download(asText(table, ','), name + '.csv') }, 'CSV');
  return make('p', { class: 'tools' }, copy, ...(window.origin === 'null' && window.parent !== window ? [] : [save]), status);
}

// A click on a title sorts, a second one turns the order; a text in the field leaves the rows that have it. A head's name
// or a prompt's number opens it.
function mountTables(state) {
  for (const table of document.querySelectorAll('table.numbers[data-name]')) {
    const tools = withTools(table, table.dataset.name);
    if (table.tBodies[0].rows.length > 12) tools.prepend(filterOf(table));
    (table.closest('.tall') || table).before(tools);
    for (const [at, title] of [...table.tHead.rows[0].cells].entries()) sortBy(table, title, at);
    linkRows(state, table);
  }
}

function filterOf(table) {
  const left = make('span', { class: 'status', role: 'status' });
  const box = make('input', { type: 'search', placeholder: 'Filter rows', 'aria-label': 'Filter rows of ' + table.dataset.name, oninput: () => {
    const wanted = box.value.trim().toLowerCase(), rows = [...table.tBodies[0].rows];
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    left.textContent = wanted ? rows.filter((row) => !row.hidden).length + ' of ' + rows.length : '';
  } });
  return make('span', { class: 'filter' }, box, left);
}

function sortBy(table, title, at) {
  const button = make('button', { type: 'button', class: 'sorts' }, ...title.childNodes);
  title.replaceChildren(button);
  button.addEventListener('click', () => {
    const up = title.getAttribute('aria-sort') === 'descending';
    for (const other of table.tHead.rows[0].cells) other.removeAttribute('aria-sort');
    title.setAttribute('aria-sort', up ? 'ascending' : 'descending');
    const rows = [...table.tBodies[0].rows];
    table.tBodies[0].append(...rows.sort((a, b) => (up ? 1 : -1) * compareCells(a.cells[at], b.cells[at])));
  });
}

// Numbers by value, others as text; empty cells are the least.
function compareCells(a, b) {
  const [first, second] = [valueOf(a), valueOf(b)];
  if (typeof first === 'number' && typeof second === 'number') return first - second;
  return typeof first === typeof second ? String(first).localeCompare(String(second), undefined, { numeric: true }) : typeof first === 'number' ? 1 : -1;
}

function valueOf({ dataset, textContent }) {
  const text = dataset.value === undefined ? textContent.trim() : dataset.value;
  return text !== '' && Number.isFinite(Number(text)) ? Number(text) : text;
}

function linkRows(state, table) {
  const title = table.tHead.rows[0].cells[0].textContent, inspected = document.getElementById('draw-inspector');
  if (!inspected || !['head', 'number'].includes(title)) return;
  for (const { cells } of table.tBodies[0].rows) {
    const text = cells[0].textContent.trim(), head = title === 'head' ? parseHead(text) : null;
    if (title === 'head' && !(head && state.stack(head[2]))) continue;
    const open = () => (head ? state.open(head) : (state.setPrompt(Number(text)), state.tell('opened')));
    cells[0].replaceChildren(make('button', { type: 'button', class: 'link', onclick: open }, text));
  }
}

function asText(table, separator) {
  const plainly = (cell) => (cell.dataset.value || cell.textContent.trim().replace(/^−/, '-').replace(/\s+/g, ' '));
  const quoted = (text) => (text.includes(separator) || text.includes('"') ? '"' + text.replaceAll('"', '""') + '"' : text);
  return [...table.rows].map((row) => [...row.cells].map((cell) => quoted(plainly(cell))).join(separator)).join('\n') + '\n';
}

// The clipboard of a page opened from a file, or inside a sandbox, may be out of reach: then the old way.
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const box = make('textarea', { class: 'skip', 'aria-hidden': 'true' });
    box.value = text;
    document.body.append(box);
    box.select();
    const done = document.execCommand('copy');
    box.remove();
    return done;
  }
}

function download(content, name, type = 'text/csv') {
  const address = URL.createObjectURL(new Blob([content], { type }));
  make('a', { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
