// Where a prediction came from: what each method says and what the causes say, as shaded text, one line for each.

function mountSources(place, state) {
  const targets = make('div', { class: 'controls' }), lines = make('div', { class: 'sources' });
  place.append(targets, lines);
  let target = null, latest = 0;
  const draw = async () => {
    const mine = ++latest, told = await state.sources();
    if (mine !== latest) return;
    if (!told) { targets.replaceChildren(); lines.replaceChildren(make('p', {}, 'This page does not hold the scores of prompt ' + state.prompt + '. ' + state.leftOut)); return; }
    const side = state.data.prompts[state.prompt];
    if (!told.targets.includes(target)) target = told.targets[told.targets.length - 1];
    const box = select('Prediction made at', told.targets.map((at) => [at, at + ': after “' + cut(side.tokens[at] || '', 20) + '”']), (value) => { target = Number(value); draw(); });
    box.box.value = target;
    targets.replaceChildren(...(told.targets.length > 1 ? [box.label] : []));
    const texts = textsOf(side, state.view);
    const scored = (row) => texts.map(({ tokens, of }) => tokens.map((unit) => ({ ...unit, score: told.score(row, target, unit, of) })));
    lines.replaceChildren(...told.names.map((name, row) => sourceLine(name, told.isCause(row), scored(row))));
  };
  for (const event of ['prompt', 'view']) state.on(event, draw);
  return draw();
}

// The source (if there is one) and the prompt's own text, in tokens or words.
function textsOf(side, view) {
  return [...(side.source ? [{ tokens: units(side.source, view, null), of: 'source' }] : []), { tokens: units(side, view, null), of: 'scores' }];
}

// The scores of the prompt that is shown. A word's is the sum of its tokens'; NaN where nothing is said.
function sourcesOf(state) {
  const unpacked = {};
  return async () => {
    const given = state.data.sources[state.prompt];
    if (!given || !given.targets.length) return null;
    const [scores, source] = await (unpacked[state.prompt] ||= Promise.all([unpack(given.scores), given.source && unpack(given.source)]));
    const arrays = { scores, source }, rows = given.names.length * given.targets.length;
    const score = (row, target, { at }, of) => {
      const width = arrays[of].length / rows, start = (row * given.targets.length + given.targets.indexOf(target)) * width;
      return at.reduce((sum, position) => sum + arrays[of][start + position], 0);
    };
    return { ...given, score, isCause: (row) => row >= given.methods };
  };
}

// The shade is the share of the line's largest score.
function sourceLine(name, cause, texts) {
  const most = largest(texts.flat().map(({ score }) => score).filter(Number.isFinite));
  const shown = texts.map((tokens) => make('p', { class: 'tokens' }, ...tokens.map(({ text, score }) => {
    const token = make('bdi', { class: score < 0 ? 'against' : 'for', title: Number.isFinite(score) ? plain(score) : 'not scored' }, text);
    token.style.setProperty('--share', Number.isFinite(score) && most ? Math.abs(score) / most : 0);
    return token;
  })));
  return make('div', { class: 'source' + (cause ? ' cause' : '') }, make('h3', {}, name + (cause ? ' (cause)' : ''), make('small', {}, ' darkest: ' + plain(most))), ...shown);
}
