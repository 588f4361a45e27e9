// The scores that a map of heads can show: effect, direct effect, the rest (later layers), and roles.

function scoresOf(state) {
  const { data } = state;
  const choices = data.metrics.length ? [{ name: 'effect', of: (metric) => ({ ...metric, summed: true, score: 'effect on ' + metric.name }) }] : [];
  if (data.metrics.some((metric) => metric.direct)) {
    const bare = { beside: [], tested: false, judged: false };
    choices.push({ name: 'direct', of: (metric) => ({ ...metric, ...bare, means: metric.directMeans, score: 'direct effect on ' + metric.name }) });
    choices.push({ name: 'later layers', of: (metric) => ({ ...metric, ...bare, means: metric.means.map((mean, at) => mean - metric.directMeans[at]), score: 'what later layers add to the effect on ' + metric.name }) });
  }
  for (const role of data.roles) {
    choices.push({ name: role.name, role: true, of: () => ({ name: role.name, score: 'score as ' + role.name, means: role.scores, sense: 0, unit: '', beside: [], tested: false, judged: false, role: true }) });
  }
  return choices;
}

function largest(values) {
  let most = 0;
  for (const value of values) if (Math.abs(value) > most) most = Math.abs(value);
  return most;
}
