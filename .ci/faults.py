"""Faults that were once made on purpose, each with the tests that must see it: `make mutants FAULTS=named`.

The first group survived the suite of November 2026, the second was killed by it and must stay so. `before` stands once
in the file; where it no longer does, the tool stops and the fault is to be written anew.
"""

from typing import NamedTuple


class Fault(NamedTuple):
    """`before` becomes `after` in a file; `tests` are files or functions."""

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]


def _fault(name: str, file: str, before: str, after: str, *tests: str) -> Fault:
    return Fault(name, f"harness/{file}.py", before, after, tuple(f"tests/test_{test}" for test in tests))


def _in(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{file}.py::test_{name}" for name in names)


_STATS = "stats/summary"
_SHAREDS = _in("roles", "what_a_head_raises_reads_the_values_of_its_own_group")

FAULTS = (
    # --- survived once, with their kin -----------------------------------------------------------------------------
    _fault(
        "rows join at the first block",
        "sweep/engine",
        "copies = sum(start <= at for start in starts)",
        "copies = len(starts)",
        *_in("sweep", "run_ablated_lets_rows_join_at_their_own_block"),
    ),
    _fault(
        "blocks before the first intervention run again",
        "sweep/engine",
        "blocks, first = hooks.blocks(model.bridge), starts[0]",
        "blocks, first = hooks.blocks(model.bridge), 0",
        *_in("sweep", "run_ablated_lets_rows_join_at_their_own_block"),
    ),
    _fault(
        "important by its upper bound alone",
        _STATS,
        '(table["ci_low"].to_numpy() > options.min_effect)',
        '(table["ci_high"].to_numpy() > options.min_effect)',
        *_in("stats", "important_needs_both_bounds_beyond_the_smallest_effect"),
    ),
    _fault(
        "important by its lower bound alone",
        _STATS,
        '(table["ci_high"].to_numpy() < -options.min_effect)',
        '(table["ci_low"].to_numpy() < -options.min_effect)',
        *_in("stats", "important_needs_both_bounds_beyond_the_smallest_effect"),
    ),
    _fault(
        "a role without its p",
        "roles/scoring",
        "far_enough(score, chance, spec.threshold, least) & (p_adjusted < stats.level)",
        "far_enough(score, chance, spec.threshold, least)",
        *_in("roles", "role_scores_give_no_role_that_chance_gives_as_often"),
    ),
    _fault(
        "a syntactic role without its p",
        "roles/scoring",
        "(measured.score >= chance + MORE) & (p_adjusted < stats.level)",
        "measured.score >= chance + MORE",
        *_in("roles", "role_scores_give_no_syntactic_role_after_two_relations"),
    ),
    _fault(
        "grouped heads modulo, in what is cached",
        "attention/capture",
        "mine = {head.head // shared for",
        "mine = {head.head % shared for",
        *_in("attention", "activations_keep_the_key_and_value_head_that_a_head_shares"),
    ),
    _fault(
        "grouped heads modulo, in a head taken apart",
        "findings/questions/qkv",
        "kv_head=head.head // shared",
        "kv_head=head.head % shared",
        *_in("questions", "a_head_taken_apart_has_the_values_of_its_group"),
    ),
    _fault(
        "grouped heads modulo, in copying",
        "roles/copying",
        ".repeat_interleave(shared, dim=0)",
        ".repeat(shared, 1, 1)",
        *_SHAREDS,
    ),
    _fault(
        "grouped heads modulo, in what values carry",
        "attribution/ov_contributions",
        "value.repeat(n_heads // value.shape[1], axis=1)",
        "np.tile(value, (1, n_heads // value.shape[1], 1, 1))",
        "methods_on_models.py",
    ),
    _fault(
        "grouped heads modulo, in a model's traits",
        "models/traits",
        "v.repeat_interleave(shape.n_heads // shape.n_kv_heads, dim=2)",
        "v.repeat(1, 1, shape.n_heads // shape.n_kv_heads, 1)",
        *_in("causes", "traits_of_grouped_heads_say_that_z_mixes_values"),
    ),
    _fault(
        "labels of the strongest heads shifted by one",
        "views/figures/effects",
        "axes.set_yticks(range(len(heads)), map(str, heads))",
        "axes.set_yticks(range(len(heads)), map(str, heads[1:] + heads[:1]))",
        *_in("views", "figures_label_each_row_of_the_strongest_heads_with_its_own_head"),
    ),
    _fault(
        "blue and orange swapped in all figures",
        "views/figures/base",
        '{"helps": "#1d5c96", "hurts": "#c2570c"',
        '{"helps": "#c2570c", "hurts": "#1d5c96"',
        *_in("views", "figures_have_the_colours_of_the_page"),
    ),
    _fault(
        "blue and orange swapped in maps",
        "views/figures/base",
        'below, above = ("hurts", "helps") if',
        'below, above = ("helps", "hurts") if',
        *_in("views", "figures_draw_what_helps_in_blue_and_what_hurts_in_orange"),
    ),
    _fault(
        "a knocked-out segment may not hear itself",
        "attribution/knockout",
        "own[:, None, :] & ~own[:, :, None]",
        "own[:, None, :] & torch.ones_like(own)[:, :, None]",
        *_in("causes", "knock_out_lets_the_tokens_of_a_part_read_each_other_and_themselves"),
    ),
    _fault(
        "tokens of a knocked-out segment hear themselves alone",
        "attribution/knockout",
        "own[:, None, :] & ~own[:, :, None]",
        "own[:, None, :] & ~torch.eye(own.shape[1], dtype=torch.bool, device=own.device)",
        *_in("causes", "knock_out_lets_the_tokens_of_a_part_read_each_other_and_themselves"),
    ),
    _fault(
        "the directory's name unescaped in the page's foot",
        "views/report",
        "Made from the run directory {markup(run.path.name)}",
        "Made from the run directory {run.path.name}",
        *_in("views", "the_foot_of_the_report_names_a_directory_as_text"),
    ),
    _fault(
        "the directory's name unescaped in a notebook",
        "results/run",
        "{html.escape(str(value))}",
        "{value}",
        *_in("views", "a_run_in_a_notebook_names_its_directory_as_text"),
    ),
    # --- the sweep -------------------------------------------------------------------------------------------------
    _fault(
        "wrong joined input",
        "sweep/engine",
        "(args, kwargs), clean.entered[at], clean.n_rows",
        "(args, kwargs), clean.entered[max(at - 1, 0)], clean.n_rows",
        *_in("sweep", "every_effect_equals_plain_hugging_face_with_unequal_lengths"),
    ),
    _fault(
        "first token not apart",
        "ablation/mean",
        "_N_MEANS = {FIRST_APART: 2, POOLED: 1}",
        "_N_MEANS = {FIRST_APART: 1, POOLED: 1}",
        *_in("ablation", "every_baseline_at_every_place_equals_plain_hugging_face"),
    ),
    _fault(
        "padding counted in a mean",
        "ablation/mean",
        "rows.queries(site.text_stack) >= 0",
        "rows.queries(site.text_stack) >= -1",
        *_in("ablation", "every_baseline_at_every_place_equals_plain_hugging_face"),
    ),
    _fault(
        "donors of the own cluster",
        "ablation/donors",
        "[cluster != prompts.cluster[number] for cluster in prompts.cluster]",
        "[True for cluster in prompts.cluster]",
        *_in("ablation", "donors_come_from_another_cluster_and_of_the_nearest_length"),
    ),
    _fault(
        "donors without their seed",
        "ablation/donors",
        "np.random.default_rng(seed)",
        "np.random.default_rng(0)",
        *_in("ablation", "donors_are_those_of_the_seed_and_of_the_frozen_plan"),
    ),
    _fault(
        "greedy order reversed",
        "sweep/greedy",
        "ranked(needed, self.first)[0]",
        "ranked(needed, self.first)[-1]",
        *_in("together", "orders_are_those_of_the_leading_metric"),
    ),
    # --- numbers ---------------------------------------------------------------------------------------------------
    _fault(
        "a prompt is the sum of its targets",
        "prompts/targets",
        "return total / self.count",
        "return total",
        *_in("metrics", "a_prompt_is_the_mean_of_its_own_targets"),
    ),
    _fault(
        "KL the other way",
        "metrics",
        "(clean.exp() * (clean - read.log_prob))",
        "(read.log_prob.exp() * (read.log_prob - clean))",
        *_in("metrics", "a_metric_equals_numpy"),
    ),
    _fault(
        "max-T by the minimum",
        "stats/randomisation",
        "np.maximum.accumulate(block[:, order[::-1]], axis=1)",
        "np.minimum.accumulate(block[:, order[::-1]], axis=1)",
        *_in("stats", "three_prompts_by_hand", "exact_sign_flip_is_scipys", "copies_of_a_head_cost_max_t_nothing"),
    ),
    _fault(
        "prompts drawn in place of clusters",
        _STATS,
        "bounds = interval(sums, grouped.size, confidence, resamples, draw)",
        "bounds = interval(taken.values, np.ones(len(taken.values)), confidence, resamples, draw)",
        *_in("stats", "equal_clusters_are_their_means", "one_prompt_or_one_cluster_claims_nothing"),
    ),
    _fault(
        "Benjamini–Hochberg without `tested`",
        "stats/discovery",
        "total = len(p_value) if tested is None else tested",
        "total = len(p_value)",
        *_in("stats", "correcting_over_more_heads_than_shown_is_stricter"),
    ),
    _fault(
        "standard deviation for standard error",
        "results/run",
        "values.std(ddof=1) / np.sqrt(len(values))",
        "values.std(ddof=1)",
        *_in("findings", "strongest_heads_are_named_with_number_spread_and_sign"),
    ),
    # --- attribution -----------------------------------------------------------------------------------------------
    _fault(
        "rollout from the last layer to the first",
        "attribution/rollout",
        "rolled = step @ rolled",
        "rolled = rolled @ step",
        *_in("attribution", "hand_worked_example", "equals_the_naive_loop"),
    ),
    _fault(
        "grouped heads modulo, in knockout",
        "attribution/knockout",
        "value.repeat(pattern.shape[1] // value.shape[1], axis=1)",
        "np.tile(value, (1, pattern.shape[1] // value.shape[1], 1, 1))",
        *_in("causes", "knockout_without_gives_each_head_the_values_of_its_group"),
    ),
    _fault(
        "the norm at the end not frozen",
        "sweep/direct",
        "return FrozenNorm(final.original_component, clean.end[rows][:, None])(resid)",
        "return out",
        *_in("direct", "direct_effects_are_the_heads_own_write_through_a_frozen_norm"),
    ),
    _fault(
        "the norm of a write not frozen",
        "sweep/direct",
        "return scale * (frozen(write(after)) - frozen(write(before)))[0]",
        "return scale * (norm(write(after)) - norm(write(before)))[0]",
        *_in("direct", "direct_effects_are_the_heads_own_write_through_a_frozen_norm"),
    ),
    _fault(
        "comprehensiveness for sufficiency",
        "attribution/evaluate/statistics",
        "[erased[:, :, :, 0].mean(-1), erased[:, :, :, 1].mean(-1), *areas]",
        "[erased[:, :, :, 1].mean(-1), erased[:, :, :, 0].mean(-1), *areas]",
        *_in("faithfulness", "areas_by_hand", "curves_equal_plain_forwards_with_the_tokens_replaced"),
    ),
    # --- prompts, stores, workers ------------------------------------------------------------------------------------
    _fault(
        "queries of a word summed",
        "words/merge",
        "return queries / queries.sum(axis=1, keepdims=True) @ pattern",
        "return queries @ pattern",
        *_in("words", "words_are_merged_by_sum_over_keys_and_mean_over_queries"),
    ),
    _fault(
        "answer and distractor swapped",
        "prompts/ioi",
        "with_answer(model, prompt, answer, subject,",
        "with_answer(model, prompt, subject, answer,",
        *_in("prompts", "ioi_draws_from_many_templates_and_names_the_answer_once"),
    ),
    _fault(
        "a unit's checksum not read",
        "results/store",
        "if hashlib.sha256(content).hexdigest().encode() != digest:",
        "if not digest:",
        *_in("results", "a_damaged_unit_is_not_there"),
    ),
    _fault(
        "the checksum of a plan or manifest not read",
        "results/store",
        'values.pop("checksum", None) != _digest_of(values):',
        'values.pop("checksum", None) is None:',
        *_in("results", "a_manifest_must_be_whole", "a_damaged_run_is_refused"),
    ),
    _fault(
        "the checksum of converted weights not read",
        "models/cache",
        "all(sha256(folder / name) == digest for",
        "all((folder / name).exists() for",
        *_in("models", "a_damaged_cached_file_is_built_again"),
    ),
    _fault(
        "a dead worker's unit is forgotten",
        "execute/spread",
        "(lost if aside else left).append(unit)",
        "lost.append(unit) if aside else None",
        *_in("execute", "a_worker_that_dies_takes_no_unit_with_it"),
    ),
    _fault(
        "split units in the order of their parts",
        "sweep/division",
        "axis=_AXIS[name]).take(places, _AXIS[name])",
        "axis=_AXIS[name])",
        *_in("execute", "a_split_sweep_gives_the_same_bits"),
    ),
    _fault(
        "a role however near chance",
        "roles/scoring",
        "score - chance >= threshold * (1 - chance)",
        "score - chance >= 0",
        *_in("roles", "far_enough_is_a_share_of_the_way_from_chance_to_one"),
    ),
    _fault(
        "the diagonal a token too near",
        "roles/masks",
        "np.abs(context.offset) <= BAND",
        "np.abs(context.offset) < BAND",
        *_in("roles", "which_keys_a_role_looks_at"),
    ),
    _fault(
        "no near miss is named",
        "config/errors",
        "close = get_close_matches(str(word), list(options), n=1)",
        "close = []",
        *_in("config", "an_unknown_model_is_refused_with_the_nearest"),
    ),
    # --- what is shown -----------------------------------------------------------------------------------------------
    _fault(
        "markup unescaped",
        "views/text",
        "html.escape(visible(str(text)), quote=True)",
        "visible(str(text))",
        *_in("views", "user_text_stays_text"),
    ),
    _fault(
        "JSON in a page unescaped",
        "views/text",
        'text.replace("<", "\\\\u003c").replace',
        "text.replace",
        *_in("views", "json_in_a_page_survives_and_ends_no_element"),
    ),
    _fault(
        "patterns packed above the diagonal",
        "views/pack",
        "np.tril_indices(",
        "np.triu_indices(",
        *_in("views", "patterns_are_packed_to_half_a_255th"),
    ),
    _fault(
        "helps for hurts",
        "results/run",
        '"helps" if sense * effect > 0 else "hurts"',
        '"hurts" if sense * effect > 0 else "helps"',
        *_in("findings", "helps_and_hurts"),
    ),
    _fault(
        "the numbers in the page's head off by one",
        "findings/effects",
        "sure = sum(claim.p_adjusted < level for claim in known)",
        "sure = 1 + sum(claim.p_adjusted < level for claim in known)",
        *_in("findings", "heads_are_counted_against_chance_with_all_tests_together"),
    ),
    _fault(
        "a minus lost in tables",
        "views/number_tables",
        '.replace("-", "−")',
        '.replace("-", "")',
        *_in("views", "a_column_of_a_table_has_one_precision_and_holds_its_numbers_whole"),
    ),
)
