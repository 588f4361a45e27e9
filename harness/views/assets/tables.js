// Every table of numbers can be copied (as tab-separated text) and saved (as CSV).

function withTools(table, name) {
  const status = make('span', { class: 'status', role: 'status' });
  const copy = make('button', { type: 'button', class: 'tool', onclick: async () => { status.textContent = (await copied(asText(table, '\t'))) ? 'copied' : 'could not be copied'; } }, 'Copy');
  const save = make('button', { type: 'button', class: 'tool', onclick: () => download(asText(table, ','), name + '.csv') }, 'CSV');
  return make('p', { class: 'tools' }, copy, ...(window.origin === 'null' && window.parent !== window ? [] : [save]), status);
}

function mountTables() {
  for (const table of document.querySelectorAll('table.numbers[data-name]')) {
    (table.closest('.tall') || table).before(withTools(table, table.dataset.name));
  }
}

function asText(table, separator) {
  const plainly = (cell) => cell.textContent.trim().replace(/^−/, '-').replace(/\s+/g, ' ');
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
