// Where a prediction came from: what each method says and what the causes say, as shaded text, one line for each.

function mountSources(place, state) {
  const targets = make('div', { class: 'controls' }), lines = make('div', { class: 'sources' });
  place.append(targets, lines);
  let target = null, latest = 0;
  const draw = async () => {
    const mine = ++latest, given = state.data.sources[state.prompt];
    if (!given) { targets.replaceChildren(); lines.replaceChildren(make('p', {}, 'This page does not hold the scores of prompt ' + state.prompt + '. ' + state.leftOut)); return; }
    const scores = await unpack(given.scores);
    if (mine !== latest) return;
    const side = state.data.prompts[state.prompt], width = side.tokens.length;
    if (!given.targets.includes(target)) target = given.targets[given.targets.length - 1];
    const box = select('Prediction made at', given.targets.map((at) => [at, at + ': after “' + cut(side.tokens[at] || '', 20) + '”']), (value) => { target = Number(value); draw(); });
    box.box.value = target;
    targets.replaceChildren(...(given.targets.length > 1 ? [box.label] : []));
    lines.replaceChildren(...given.names.map((name, row) => {
      const start = (row * given.targets.length + given.targets.indexOf(target)) * width;
      return sourceLine(name, row >= given.methods, units(side, state.view, null), scores.subarray(start, start + width));
    }));
  };
  for (const event of ['prompt', 'view']) state.on(event, draw);
  draw();
}

// A word's score is the sum of its tokens'. The shade is the share of the line's largest score.
function sourceLine(name, cause, tokens, scores) {
  const sums = tokens.map(({ at }) => at.reduce((sum, position) => sum + scores[position], 0));
  const most = largest(sums.filter(Number.isFinite));
  const text = make('p', { class: 'tokens' }, ...tokens.map((unit, index) => {
    const token = make('bdi', { class: sums[index] < 0 ? 'against' : 'for', title: Number.isFinite(sums[index]) ? plain(sums[index]) : 'not scored' }, unit.text);
    token.style.setProperty('--share', Number.isFinite(sums[index]) && most ? Math.abs(sums[index]) / most : 0);
    return token;
  }));
  return make('div', { class: 'source' + (cause ? ' cause' : '') }, make('h3', {}, name + (cause ? ' (cause)' : ''), make('small', {}, ' darkest: ' + plain(most))), text);
}
