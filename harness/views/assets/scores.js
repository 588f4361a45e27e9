// What a map of heads can show: the effect, its direct part, what later layers add, and what a head was scored for.

function scoresOf(state) {
  const { data } = state;
  const found = data.metrics.length ? [{ name: 'effect', of: (metric) => ({ ...metric, score: 'effect on ' + metric.name }) }] : [];
  if (data.metrics.some((metric) => metric.direct)) {
    const bare = { beside: [], tested: false };
    found.push({ name: 'direct', of: (metric) => ({ ...metric, ...bare, means: metric.direct, score: 'direct part of the effect on ' + metric.name }) });
    found.push({ name: 'later layers', of: (metric) => ({ ...metric, ...bare, means: metric.means.map((mean, at) => mean - metric.direct[at]), score: 'what later layers add to the effect on ' + metric.name }) });
  }
  for (const role of data.roles) {
    found.push({ name: role.name, of: () => ({ name: role.name, score: 'score as ' + role.name, means: role.scores, sense: 0, unit: '', beside: [], tested: false, role: true }) });
  }
  return found;
}

function largest(values) {
  let most = 0;
  for (const value of values) if (Math.abs(value) > most) most = Math.abs(value);
  return most;
}
