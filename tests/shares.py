"""Which cases of long tests the suite keeps: `make test-slow` runs the others.

The rule: what a test shows is shown in the suite by its cheapest case of each kind. Its other cases differ in what a
contract over every registered component (test_contract*.py), or a test of their own, shows too; these are marked slow,
as are long runs whose every step has a shorter test, named behind them. Of refusals, oracles and the contract one case
of each kind stays.

`KEPT` lists the cases that stay, by file and function; an empty list leaves the whole function to `make test-slow`.
Tests say so themselves (`support.slow_but`) where a rule on their values chooses the cases.
"""

from collections.abc import Iterable

import pytest

KEPT: dict[str, dict[str, tuple[str, ...]]] = {
    "ais": {
        # Latents of several families: the bracket of exact values has one of each kind of term.
        "every_family_agrees_with_importance_weights": ("two modalities",),
    },
    "api": {
        "two_arrays_are_given_by_name": ("labels",),
        "discrete_codes_go_there_and_back": ("joint",),
    },
    "bench": {
        "a_job_runs_in_its_own_process": (),  # a tool of this repository
    },
    "brought": {
        "few_photographs_are_trained_on_for_some_epochs": (),  # test_readme trains own_images on photographs
        "few_examples_are_shown_with_a_note": (),  # test_few_examples
        "arrays_of_odd_sizes": ("65x65x1",),
        "a_split_by_patients_measures_less_than_a_split_by_rows": (),  # test_splits: groups stay together
        "nine_labels_of_ten_unknown": (),
        "digits_of_which_a_third_is_missing_are_trained_on_and_filled_in": (),  # test_options_impute
    },
    "checkpoint": {
        "a_sharded_state_has_the_checksums_of_a_single_one": ("mesh0", "mesh2"),
    },
    "condition": {"probes_learn_from_the_labeled_examples": ()},  # test_representation
    "contract": {
        # Each kind of state and of loss: of a VAE, of labels, of a codebook, of a frozen first stage.
        "seeds_and_strengths_are_an_axis": (
            "model-vae", "model-ae", "model-grid", "model-m2", "model-vq2", "model-second-stage",
        ),
        "loss_is_finite_and_the_same_jitted_and_eager": (
            "model-vae", "model-ae", "model-grid", "model-levels", "model-classifier", "model-m2", "model-vq",
            "network-mlp", "likelihood-gaussian-learned",
        ),
    },
    "counts": {
        "dispersions_are_recovered": (),  # the density itself is scipy's
    },
    "damage": {"a_damaged_population_of_a_sweep_is_passed_over": ()},  # a damaged checkpoint of a run
    "data_pictures": {
        "the_bundled_crops_of_own_images_refuse_what_they_do_not_read": ("words0",),
    },
    "data_split": {
        "what_cannot_be_split_has_the_word_for_every_kind": (
            "1-1 example cannot be split; add examples or-series",
            "1-1 example cannot be split; add examples or-table",
            "4-all 4 examples are the same, so none-image",
            "4-all 4 examples are the same, so none-series",
        ),
    },
    "discrete": {
        "importance_bound_reaches_the_exact_log_p": ("binary",),
    },
    "evaluation": {"no_number_depends_on_the_batch_size": ("ae",)},
    "expost": {
        "the_density_is_near_the_true_one_on_fresh_codes": ("gmm", "flow"),
        "samples_follow_the_density": ("gmm", "flow"),
        "a_dimension_that_never_varies_is_no_trouble": ("gmm",),
    },
    "extending": {
        "a_report_from_another_shell": (),  # a_file_with_four_parts_lives_on_in_another_shell
        "a_changed_file_beside_it_does_not_resume": (),  # a_changed_file_does_not_resume
        "an_example_lives_on_without_its_file": ("data set",),
        "vectors_are_called_vectors": (),  # vectors_have_no_pictures
    },
    "gaps": {"the_inference_gap_of_a_correlated_posterior_needs_no_gaussian_of_its_own": ()},  # the_gaps_add_up
    "held_out": {
        "no_test_split_is_measured_while_a_run_trains": (
            "vae_digits-two.npz--npz-fixes3",
            "vae_digits-digits---data.protocol full --data.limit 30-digits-fixes4",
            "vae_digits-x.npz---data.protocol standard --logging.best elbo --patience 3-npz-fixes5",
        ),
        "patience_ends_a_run_and_resume_counts_on": ("6",),
        "a_run_that_is_continued_is_not_sent_to_another_protocol": ("--logging.best elbo",),
        "what_is_tested_on_its_training_data_has_a_curve_of_them": ("x.npz",),
    },
    "imbalance": {
        "weights_of_one_change_no_bit_and_weights_of_two_are_duplicated_rows": (
            "vae", "autoencoder", "sigma", "sigma autoencoder", "m2",
        ),
    },
    "importance": {"dreg_has_the_mean_of_the_plain_gradient": ("iwae", "ciwae")},
    "inception": {"batches_gray_and_values_outside": ()},  # a_run_is_measured, which has gray images in batches
    "interrupt": {
        # the_training_loop_sees_the_first_signal_and_the_second_acts_at_once
        "the_second_ctrl_c_of_train_acts_at_once_and_the_run_resumes": (),
        "ctrl_c_in_eval_at_its_start_in_its_imports_and_while_it_computes": ("6.0",),
        "ctrl_c_after_the_last_step_is_obeyed_and_resume_ends_the_run": ("the last figures",),
        "after_the_training_loop_its_flag_waits_for_nothing": ("after a signal",),
    },
    "kinds": {
        # One objective of each form of loss; the contract has all on images.
        "every_objective_scores_vectors": ("elbo", "aggressive", "iwae", "beta-tc", "wae-mmd", "rae-l2", "geco"),
    },
    "latents": {
        # A grid; two levels go through training, codes and pictures.
        "metrics": ("Grid",),
        "a_density_of_codes": ("Grid",),
        "walks": ("Grid",),
    },
    "markup": {"folders": (":key:",)},
    "memory": {
        # A table, images and series; the others are read into the same arrays.
        "data_in_memory_train_as_from_their_file_bit_for_bit": ("array", "columns", "series by shape"),
        "what_may_be_either_is_refused_and_the_options_in_the_message_decide": ("integers",),
    },
    "moving_average": {
        "members_of_a_sweep_are_measured_on_their_moving_average": (),  # measure, of a run
        "fit_prior_and_samples_from_it": ("gmm",),
    },
    "multimodal": {
        "the_bound_adds_up_over_labels": ("moe",),
        "the_loss_is_the_sum_of_its_bounds": ("poe",),
    },
    "net_evaluation": {
        "the_held_out_curve_is_of_validation_where_there_is_one": ("standard-validation",),
    },
    "networks_strong": {"dropout_is_for_training_only": ("network0",)},
    "objectives_parallel": {
        # Statistics of the batch, of pairs, of projections, of a critic, a controller, gradients of gradients.
        "eight_devices_are_one": (
            "beta-tc-mesh", "dip-i-mesh", "factor-mesh", "free-bits-mesh", "geco-mesh", "mmd-mesh", "rae-gp-mesh",
            "sliced-wae-mesh", "wae-gan-mesh", "wae-mmd-mog-mesh", "mmd-pmap", "free-bits-pmap",
        ),
    },
    "old_runs": {
        # Each of the three is opened and measured.
        "resumes_to_the_same_metrics": ("vae", "member"),
        "a_folder_of_before_the_format_number_is_rewritten_when_it_is_resumed_only": ("vae",),
    },
    "options_measure": {"annealed_chains_are_those_of_the_settings": ("prior",)},
    "parallel": {
        "layouts_agree": ("conv-data2-fsdp4", "mlp-data8", "mlp-shard_map", "mlp-pmap", "optimal-pmap"),
        "accumulation_agrees_across_layouts": ("mlp-data2-fsdp4", "optimal-pmap"),
        "many_steps_in_one_dispatch": ("data2-fsdp4", "one"),
    },
    "preflight": {
        "a_split_that_is_not_there_is_refused_before_the_first_step": ("npz all", "folder held"),
    },
    "priors": {"eight_devices_equal_one": ("resampled-mesh", "exemplar-pmap")},
    "reproduce": {
        # Trained for real; what it writes of two stages is tested with runs that are not.
        "training_measuring_and_going_on": (),
    },
    "resume": {"a_sweep_of_before_keeps_its_split": ()},  # the same file of a run
    "score": {
        "a_model_of_image_and_label_is_compared_by_the_image_alone": (),  # the bound adds up over labels
    },
    "series": {"a_run_writes_the_units_of_its_file": ()},  # test_ranges: units of everything that is written
    "splits": {
        "groups_in_memory_and_a_file_of_splits_that_crosses_them": (),  # no_group_is_in_two_splits
    },
    "stage2_diffusion": {
        "loss_of_a_new_network": ("flow-matching",),
        # The exact density and the order of the samplers are held of both kinds of path.
        "a_new_network_is_a_gaussian_of_the_statistics": ("flow-matching",),
        "guidance": ("flow-matching",),
        "hutchinson_is_right_on_average": (),  # ode_log_prob_of_the_exact_network_is_the_density
    },
    "stage2_masked": {
        "prompts_are_kept_and_a_sample_depends_on_its_own_number_alone": ("generator1",),
        "noise_of_training_is_keyed_by_the_example": ("generator1",),
        "one_code_per_pass_draws_from_the_mixture_over_orders": ("choices1",),
        "the_most_confident_code_is_kept_first": ("choices0",),
    },
    "stage2_transformer": {"samples_have_their_exact_frequencies": ("choices0", "choices1")},
    "stderr": {
        "intervals_hold_the_mean_nearly_as_often_as_they_say": ("irs", "factorvae_score", "modularity"),
    },
    "sweep": {
        "a_member_equals_the_single_run_of_its_seed_and_options": ("vmap",),
        "the_python_face_gives_what_the_command_gives": (),  # test_api: faces; two_seeds_by_two_betas_from_end_to_end
        "the_lines_of_a_lost_population_are_kept_aside": (),  # those of a run, test_resume
        "a_sweep_with_a_member_that_diverges_is_finished_and_says_so": (),  # a_member_that_diverges_is_masked
        # A weight, a schedule, an estimate over the batch, a critic; the models.
        "a_traced_option_is_no_part_of_the_program": (
            "objective-beta", "objective-capacity", "objective-beta-tc", "objective-wae-gan", "objective-geco",
            "model-m2", "model-classifier", "model-multimodal",
        ),
    },
    "symbolic": {
        "every_network": ("mlp", "linear", "pooled-conv", "residual-conv", "local-ar"),
        "every_posterior": ("gaussian", "bernoulli", "delta", "planar", "full-gaussian", "beta", "von-mises"),
        "both_forms_of_a_convolution_have_one_type_under_vmap": ("5",),
    },
    "table_likelihood": {"every_model_takes_a_table": ("VAE", "M2")},
    "tables": {
        "arrays_are_tables_by_name": (),  # test_memory: tables in memory
        "log_normal_columns_train_without_logs_too": (),  # logs_of_log_normal_columns_keep_their_medians
    },
    "training": {
        "a_second_run_of_equal_options_compiles_nothing": ("{}",),
        "resume_continues_bit_for_bit": ("everything-4", "grain-8"),
    },
    "unlabelled": {
        "the_experiment_needs_no_network_and_no_file": (),  # test_experiments
    },
    "user_images": {
        "outliers_without_labels_are_scored_by_a_semi_supervised_run": (),  # test_score
    },
    "vq": {
        "a_step_trains_every_parameter_and_is_that_of_eager_code": ("vq", "gumbel", "gradient"),
        "indices_go_in_and_out": ("vq", "residual", "gradient"),
    },
    "wiring": {"the_learning_rate_follows_its_schedule_over_the_run": ("cosine",)},
}  # fmt: skip


def mark_slow(items: Iterable[pytest.Item], whole: bool = False) -> None:
    """Marks slow what the suite does not keep.

    Args:
      items: that were collected.
      whole: whole files were collected, so that a name in the table that none of them has is a mistake.

    Raises:
      pytest.UsageError: the table names a case or a function that is not there.
    """
    found: dict[tuple[str, str], set[str]] = {}
    files = set()
    for item in items:
        file = item.path.stem.removeprefix("test_")
        files.add(file)
        function, _, case = item.name.partition("[")
        kept = KEPT.get(file, {}).get(function := function.removeprefix("test_"))
        if kept is None:
            continue
        case = case.removesuffix("]")
        found.setdefault((file, function), set()).add(case)
        if case not in kept:
            item.add_marker(pytest.mark.slow)
    for file in files & set(KEPT) if whole else ():
        for function, kept in KEPT[file].items():
            gone = set(kept) - found.get((file, function), set()) if kept else set()
            if gone or (file, function) not in found:
                raise pytest.UsageError(f"tests/shares.py: test_{file}.py has no test_{function} {sorted(gone)}")
