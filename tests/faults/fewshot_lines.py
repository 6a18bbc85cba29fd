"""Single-line faults of few-shot learning that the tests must notice, each with the tests that are expected to."""

from tests.faults.fault import Fault, faults

_METRIC = ("tests/fewshot/test_metric_learners.py",)
_GRADIENT = ("tests/fewshot/test_gradient_learners.py",)
_OUTER = (
    "tests/fewshot/test_outer.py",
    "tests/fewshot/test_gradient_learners.py",
    "tests/fewshot/test_configurations.py",
    "tests/fewshot/test_learners.py",
)
_FUNCTIONAL = (
    "tests/fewshot/test_gradient_learners.py",
    "tests/fewshot/test_metric_learners.py",
    "tests/fewshot/test_learners.py",
)
_DATA = ("tests/fewshot/test_data.py", "tests/fewshot/test_sources.py", "tests/fewshot/test_experiments.py")
_IMAGES = ("tests/fewshot/test_images.py", "tests/fewshot/test_division.py")
_EVALUATION = (
    "tests/fewshot/test_metric_learners.py",
    "tests/fewshot/test_learners.py",
    "tests/fewshot/test_experiments.py",
)
_TRAINING = ("tests/fewshot/test_experiments.py",)
_BACKBONES = (
    "tests/fewshot/test_metric_learners.py",
    "tests/fewshot/test_own_learner.py",
    "tests/fewshot/test_gradient_learners.py",
    "tests/fewshot/test_experiments.py",
)
_CLOSED = ("tests/fewshot/test_closed_form.py",)
_RESIDUAL = ("tests/fewshot/test_residual.py",)
_PREDICTION = ("tests/fewshot/test_prediction.py",)
_LEARNERS = (
    "tests/fewshot/test_own_learner.py",
    "tests/fewshot/test_learners.py",
    "tests/fewshot/test_experiments.py",
)

_PAIRS: dict[str, tuple[tuple[str, ...], list[tuple[str, str]]]] = {
    "learners/siamese.py": (
        _METRIC,
        [
            (
                "positive = same & ~torch.eye(same.shape[1], dtype=torch.bool, device=same.device)",
                "positive = same",
            ),
            ("@ (members / members.sum(1, keepdim=True))", "@ members"),
            ("negative & (apart < margin))", "negative)"),
            ("apart.unsqueeze(2) + margin).clamp_min(0)", "apart.unsqueeze(2) - margin).clamp_min(0)"),
        ],
    ),
    "learners/matching.py": (
        _METRIC,
        [
            ("keys = forward + backward + support", "keys = forward + backward"),
            ("hidden = hidden + query", "hidden = hidden + 0 * query"),
            (
                "(hidden @ keys.transpose(1, 2)).softmax(-1) @ keys",
                "(hidden @ keys.transpose(1, 2)).softmax(1) @ keys",
            ),
            ("return torch.logsumexp(by_class, -1)", "return by_class.max(-1).values"),
        ],
    ),
    "learners/prototypical.py": (
        _METRIC,
        [
            ("precisions = 1 + nn.functional.softplus(raw)", "precisions = nn.functional.softplus(raw)"),
            (
                "logits: Tensor = self.head() * cosines(query, prototypes)",
                "logits: Tensor = cosines(query, prototypes)",
            ),
        ],
    ),
    "learners/kernel_regression.py": (
        _METRIC,
        [
            ("(-self.head() * squared_distances(query, support))", "(-squared_distances(query, support))"),
        ],
    ),
    "learners/relation.py": (
        _METRIC,
        [
            ("(outputs.sigmoid() - one_hot(", "(outputs - one_hot("),
        ],
    ),
    "metric.py": (
        _METRIC,
        [
            ("return total / views", "return total"),
            ("        if self.needs_all_classes:", "        if False:"),
            ("network(network.params, query, fixed=fixed)", "network(network.params, query)"),
        ],
    ),
    "learners/maml.py": (
        _GRADIENT,
        [
            ("0.03 / steps)", "0.0)"),
            (
                "self.outer.updates < self.config.first_order_updates",
                "self.outer.updates <= self.config.first_order_updates",
            ),
            (
                "before = self.inner.outputs(trace[step], episodes.support, episodes.query.inputs, step)",
                "before = self.inner.outputs(trace[step], episodes.support, episodes.query.inputs, 0)",
            ),
            ("losses = last * losses", "losses = losses"),
        ],
    ),
    "learners/adml.py": (
        _GRADIENT,
        [
            (
                "super().outer_losses(Episodes(support, episodes.query))",
                "super().outer_losses(Episodes(episodes.support, episodes.query))",
            ),
        ],
    ),
    "attacks.py": (
        ("tests/fewshot/test_attacks.py",),
        [
            ("moved + self.step_size * slope.sign()", "moved - self.step_size * slope.sign()"),
            ("low, high = low.clamp_min(least), high.clamp_max(most)", "pass"),
            ("moved = low + (high - low) *", "moved = clean + 0 *"),
            (
                "torch.minimum(torch.maximum(moved + self.step_size * slope.sign(), low), high)",
                "moved + self.step_size * slope.sign()",
            ),
        ],
    ),
    "robustness.py": (
        ("tests/fewshot/test_attacks.py",),
        [
            (
                "outputs.masked_fill(right, -torch.inf).amax(-1) - outputs[right]",
                "outputs.amax(-1) - outputs[right]",
            ),
            ("learner.adapt(support, num_steps)[-1]", "learner.adapt(support, 0)[-1]"),
        ],
    ),
    "learners/cavia.py": (
        _GRADIENT,
        [
            (".new_zeros(num_tasks, self._num_context)", ".new_ones(num_tasks, self._num_context)"),
        ],
    ),
    "learners/implicit_maml.py": (
        _GRADIENT,
        [
            ("self._regularisation / 2 * pull", "self._regularisation * pull"),
            ("{name: grads[name] - change for", "{name: grads[name] + change for"),
            (
                "total += (grad.sum(0) if name in self.inner.adapted else grad) / episodes.num_tasks",
                "total += grad.sum(0) if name in self.inner.adapted else grad",
            ),
            ("solved.residual.norm(dim=1) / right.norm(dim=1)", "solved.residual.norm(dim=1)"),
        ],
    ),
    "learners/proto_maml.py": (
        _METRIC,
        [
            ("{_WEIGHT: 2 * prototypes,", "{_WEIGHT: prototypes,"),
            ("        check_classes(support.targets)\n", "        pass\n"),
        ],
    ),
    "learners/reptile.py": (
        _GRADIENT,
        [
            ("squared = 0.001 * grad.square()", "squared = 0.01 * grad.square()"),
            ("(1 - 0.999 ** (self._num_steps + step + 1))", "(1 - 0.999 ** (step + 1))"),
            ("p.add_(deltas[name], alpha=self.epsilon)", "p.add_(deltas[name])"),
            ("rounds = -(-size * num_batches // num_rows)", "rounds = 1"),
            ("examples = part.support.join(part.query)", "examples = part.support"),
            ("before = (self.moments if step else self._start).get(name)", "before = self._start.get(name)"),
        ],
    ),
    "outer.py": (
        _OUTER,
        [
            ("torch.nn.utils.clip_grad_value_(self._params, self.config.max_grad)", "pass"),
            ("torch.nn.utils.clip_grad_norm_(self._params, self.config.max_grad_norm)", "pass"),
            (
                "done = min(updates / (self.annealing_updates - self.warmup_updates), 1.0)",
                "done = updates / (self.annealing_updates - self.warmup_updates)",
            ),
            (
                'group["lr"] = factor * self.config.outer_lr_after(self.updates)',
                'group["lr"] = self.config.outer_lr_after(self.updates)',
            ),
            ("return [(place * size, part)", "return [(place, part)"),
            ("annealing_updates=self.annealing_updates or num_updates", "annealing_updates=num_updates"),
            ("total += float(losses.detach().sum())", "total = float(losses.detach().sum())"),
        ],
    ),
    "inner_loop.py": (
        _GRADIENT,
        [
            ("self.outputs(trace[step], piece, x, step)", "self.outputs(trace[-1], piece, x, step)"),
            ("self.network.track(own, *arguments)", "pass"),
        ],
    ),
    "functional.py": (
        _FUNCTIONAL,
        [
            ('use_running = self.normalisation == "running" and self.is_evaluating', "use_running = False"),
            ("                layer.training = training\n", "                pass\n"),
            ("            layer.training = False\n", "            pass\n"),
            ("steps = num_steps + 1 if", "steps = num_steps if"),
        ],
    ),
    "layers.py": (
        _FUNCTIONAL,
        [('type(layer).__module__.startswith(("torch.nn.", "metarl."))', "type(layer).__module__ is not None")],
    ),
    "normalisation.py": (
        _GRADIENT,
        [
            (
                "shift = -means * scale if bias is None else bias - means * scale",
                "shift = -means * scale if bias is None else bias - means",
            ),
            ("return next(context.fixed)", "next(context.fixed)"),
            ("torch.var_mean(rows, (1, 3), correction=0)", "torch.var_mean(rows, (1, 3))"),
        ],
    ),
    "objectives.py": (
        ("tests/fewshot/test_objectives.py",),
        [
            (".masked_fill(~real, 0.0).sum(1) / real.sum(1)", ".sum(1) / real.sum(1)"),
            ("label_smoothing=self.label_smoothing)", "label_smoothing=0.0)"),
            ("((outputs > 0) == (targets > 0.5))", "((outputs > 0.5) == (targets > 0.5))"),
            (
                "values.mean(-1) if is_classification(targets) else values, targets)",
                "values.sum(-1) if is_classification(targets) else values, targets)",
            ),
            ("if not is_classes and num_outputs < 2:", "if False:"),
            ("/ std).square() / 2 + std.log())", "/ std).square() + std.log())"),
            ("outputs.shape[-1] < max(2, most + 1)", "outputs.shape[-1] < most + 1"),
        ],
    ),
    "episodes.py": (
        (*_GRADIENT, "tests/fewshot/test_inputs.py"),
        [
            ("for a, b, c, d in zip(*pieces", "for a, b, d, c in zip(*pieces"),
            ("examples.float() / 255", "examples.float() / 256"),
        ],
    ),
    "data/classes.py": (
        _DATA,
        [
            ("torch.arange(keys.shape[-1]) >= counts", "torch.arange(keys.shape[-1]) > counts"),
            ("torch.rot90(self.examples, turns, (-2, -1))", "torch.rot90(self.examples, turns, (-1, -2))"),
        ],
    ),
    "data/augmentation.py": (
        _DATA,
        [
            ("scale_x * (shear * cos - sin)", "scale_x * (shear * cos + sin)"),
            ("angle = u[0] * self.max_rotation * torch.pi / 180", "angle = u[0] * self.max_rotation"),
            ("maps = classes[:, :, :2] @ maps", "maps = maps"),
            (
                "self.tasks.draw(num_tasks, generator).unsqueeze(1)",
                "self.tasks.draw(num_tasks, generator)[:1, None]",
            ),
            ("bends = torch.einsum(", "_ = torch.einsum("),
            ("coarse = 2 * self.bend", "coarse = 8 * self.bend"),
        ],
    ),
    "learners/fine_tuning.py": (
        ("tests/fewshot/test_fine_tuning.py",),
        [
            ("if score >= most:", "if True:"),
            (
                "loss = loss + config.entropy_coef * mean_entropy(",
                "loss = loss - config.entropy_coef * mean_entropy(",
            ),
            ("if not last or not torch.equal(last[0][0], inputs):", "if not last:"),
            ("return self.config.entropy_coef > 0", "return False"),
            ("inner_lr=max(scores, key=scores.__getitem__))", "inner_lr=max(scores))"),
            ("return _without_one(task, -1)", "return _without_one(task, 0)"),
            ("judged = Examples(copies, known.targets)", "judged = known"),
            ("p.detach().clone().requires_grad_() for", "p for"),
        ],
    ),
    "data/unequal.py": (
        ("tests/fewshot/test_unequal.py", "tests/fewshot/test_groups.py"),
        [
            ("self._counts >= 2", "self._counts >= 1"),
            ("min(sizes.max_ways, len(group)) + 1", "sizes.max_ways + 1"),
            ("weights = counts * np.exp(", "weights = np.exp("),
            ("- num_ways)).astype(int) + 1, left)", "- num_ways)).astype(int), left)"),
            ("num_support = min(int(shares.sum()), sizes.max_support)", "num_support = int(shares.sum())"),
        ],
    ),
    "data/groups.py": (
        ("tests/fewshot/test_groups.py",),
        [
            ("members = self.members if among is None else self.members & among", "members = self.members"),
            ('return sizes if self.draws == "by_size" else torch.ones_like(sizes)', "return sizes"),
            ("for size in range(len(folders), 0, -1))", "for size in (len(folders),))"),
            ("if len(above) > 1 and _ROTATION.fullmatch(last):", "if False:"),
        ],
    ),
    "data/mixed.py": (
        ("tests/fewshot/test_mixed.py",),
        [
            ("rng.choice(len(shares), num_tasks, p=shares)", "rng.choice(len(shares), num_tasks)"),
            ("own.alone() if own.is_ragged else own.split(1)", "own.split(1)[::-1]"),
            ("equal = len(ways) == 1 and all(", "equal = all("),
            ("[weight for _, weight in parts])", "())"),
        ],
    ),
    "data/drawn.py": (
        ("tests/fewshot/test_drawn.py",),
        [
            ("padding = 0 if len(sizes) == 1 else 1", "padding = 0"),
            ("self._next = (self._next + num_tasks) % len(self.tasks)", "pass"),
            ("starts[task.classes[place]] + number", "starts[place] + number"),
        ],
    ),
    "data/class_tasks.py": (
        _DATA,
        [
            (
                "            self.episodes.train,\n            self.distorted,",
                "            self.episodes.held_out,\n            self.distorted,",
            ),
            ("self.train_shots or self.num_shots", "self.num_shots"),
            ("ways, episodes.train_ways, episodes.train_labels, equal)", "ways)"),
            (
                'self.episodes.held_out,\n                "none",',
                "self.episodes.held_out,\n                self.distorted,",
            ),
            ("{} if sizes.folder is None else {self.place: sizes.folder}", "{}"),
            (
                "train_ways=train_ways,\n            train_shots=train_shots,\n",
                "train_ways=None,\n            train_shots=None,\n",
            ),
        ],
    ),
    "data/omniglot.py": (
        _DATA,
        [
            ('character > "character41"', 'character >= "character41"'),
            ("splits.validation.select([])", "splits.validation"),
            ("if name not in images:", "if True:"),
        ],
    ),
    "data/sinusoids.py": (
        _DATA,
        [
            ("amplitude * torch.sin(x - phase)", "amplitude * torch.sin(x + phase)"),
            ("torch.sin((n + 1) * frequency * x + phases[n])", "torch.sin(frequency * x + phases[n])"),
            ("self.noise * torch.randn(x.shape", "0.1 * torch.randn(x.shape"),
        ],
    ),
    "data/decoding.py": (
        _IMAGES,
        [
            ("np.rint(greys / 257)", "np.rint(greys / 256).clip(0, 255)"),
            ("ImageOps.exif_transpose(opened)", "opened"),
            ("pixels[greys == image.info", "pixels[greys != image.info"),
            ("opened.read(members[name].file_size + 1)", "opened.read()"),
            ("Image.open(io.BytesIO(data), formats=FORMATS)", "Image.open(io.BytesIO(data))"),
            ("if total > MAX_ARCHIVE_BYTES:", "if False:"),
        ],
    ),
    "data/images.py": (
        _IMAGES,
        [
            ("        if place in places:", "        if False:"),
            ("images[number] = decode(files[number])", "images[thread] = decode(files[number])"),
            ("(state := path.stat()).st_size, state.st_mtime_ns", "0, 0"),
            ("colour=self.colour, invert=self.invert, crop=self.crop)", "colour=self.colour)"),
        ],
    ),
    "data/division.py": (
        _IMAGES,
        [
            ("            if name in split_of:", "            if False:"),
            ("if split_of.setdefault(label, split) != split:", "if False:"),
            ("np.random.default_rng(seed)", "np.random.default_rng(0)"),
        ],
    ),
    "evaluation.py": (
        _EVALUATION,
        [
            ("if row * score_every <= trained_for:", "if row * score_every < trained_for:"),
            ("predictors[::score_every]", "predictors"),
            ('{"step": place * score_every,', '{"step": place,'),
            ("min(DRAWN_TOGETHER, num_tasks - done)", "DRAWN_TOGETHER"),
        ],
    ),
    "training.py": (
        _TRAINING,
        [
            ("sums[name] = sums.get(name, 0.0) + value / num_updates", "sums[name] = value"),
            ('for name in ("validation", "test", "train") if', 'for name in ("test", "validation", "train") if'),
            ("torch.manual_seed(draw_seed(rng) % 2**63)", "draw_seed(rng)"),
            ("place * every", "place"),
        ],
    ),
    "backbones.py": (
        _BACKBONES,
        [
            ("self.film.bias[:num_filters] = 1.0", "pass"),
            ('num_halvings=3 if spec.output == "maps" else 4', "num_halvings=4"),
            ("return copy.deepcopy(self.network)", "return self.network"),
            ("            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))\n", ""),
            ("if index < 3 or rectified:", "if True:"),
            ("with torch.autocast(inputs.device.type, dtype=torch.bfloat16):", "if True:"),
            (
                'if self.precision != "float32" and (spec.exact or not images):',
                'if self.precision != "float32" and not images:',
            ),
            ("    with evaluating(network):", "    network.eval()\n    if True:"),
        ],
    ),
    "learners/ridge.py": (
        _CLOSED,
        [
            ("regularisation * identity, transposed @ values", "identity, transposed @ values"),
            ("scale * outputs + shift", "scale * outputs"),
        ],
    ),
    "learners/logistic.py": (
        _CLOSED,
        [
            ("slope = mean * (1 - mean)", "slope = mean"),
            ("labels - mean)", "labels)"),
            ("shares, 0.0).amax(0)", "shares, 1.0).amax(0)"),
        ],
    ),
    "adapted.py": (
        ("tests/fewshot/test_adapted.py",),
        [
            (
                "self._inner: InnerLoop = copy.deepcopy(inner, results_left(inner.network.module))",
                "self._inner: InnerLoop = copy.copy(inner)",
            ),
            ("weights[name].copy_(trace[name]", "weights[name].add_(0 * trace[name]"),
            ("p.copy_(params[name])", "p.add_(0 * params[name])"),
        ],
    ),
    "learners/support_vectors.py": (
        _CLOSED,
        [
            ("(gram - gram.detach()) @ duals", "(gram - gram) @ duals"),
            ("slack = members - duals", "slack = 2 * members - duals"),
            ("(1e-5 * share).clamp_max(1e-8)", "(1e-1 * share)"),
        ],
    ),
    "learners/mahalanobis.py": (
        _CLOSED,
        [
            ("share = counts / (counts + 1)", "share = 1 / (counts + 1)"),
            ("/ features.shape[1]).unsqueeze(1)", ").unsqueeze(1)"),
        ],
    ),
    "learners/label_propagation.py": (
        _CLOSED,
        [("(chosen | chosen.transpose(1, 2))", "chosen"), (".masked_fill(itself, -torch.inf)", "")],
    ),
    "learners/optimal_transport.py": (
        _CLOSED,
        [("unit - unit.mean(1, keepdim=True)", "unit"), ("(members.sum(2) + weights.sum(2))", "weights.sum(2)")],
    ),
    "learners/baseline.py": (
        ("tests/fewshot/test_baseline.py",),
        [
            ("return super().update(by_task(episodes), rng)", "return super().update(episodes, rng)"),
            ("normalize(features - self.head.centre, dim=-1)", "normalize(features, dim=-1)"),
            ("self.outer.updates < updates", "self.outer.updates <= updates"),
            ("if most >= self.config.num_classes:", "if False:"),
        ],
    ),
    "residual.py": (
        _RESIDUAL,
        [
            ("size, stride=1)\n        remaining", "1, stride=1)\n        remaining"),
            ("/ remaining.mean((-3, -2, -1), keepdim=True).clamp_min(1e-3)", ""),
            ("self.relu(inner + self.downsample(maps))", "self.relu(inner)"),
            ('self.gives_maps = spec.output == "maps"', "self.gives_maps = False"),
            ("maps.flatten(1) * math.sqrt(10 / self.num_features)", "maps.flatten(1) * math.sqrt(10)"),
            (
                "self.block2 = _Block18(second, third, 1, nn.MaxPool2d(2))",
                "self.block2 = _Block18(second, third, 2, nn.Identity())",
            ),
        ],
    ),
    "pretrained.py": (
        _RESIDUAL,
        [
            ("weights_only=True", "weights_only=False"),
            ("if strange or missing:", "if missing:"),
            ("likely = min(_rank(start) for start in whole)", "likely = max(_rank(start) for start in whole)"),
            ("weights = whole | weights", "weights = weights"),
        ],
    ),
    "diagnosis.py": (
        ("tests/fewshot/test_diagnosis.py",),
        [
            ("(true * size + predicted)", "(predicted * size + true)"),
            (".masked_fill(~is_own, _NONE)", ""),
            ("torch.bincount(true[is_none]", "torch.bincount(true[~is_none]"),
            ("self.confusion.sum(1) + self.of_none", "self.confusion.sum(1)"),
            ("self.accuracies.double().mean()", "self.right.double().mean()"),
            ("prepared(learner, source, views)", "prepared(learner, source, 1)"),
            ("_check_outputs(learner, outputs, done - len(outputs))\n        parts", "parts"),
            ('drawn_tasks(features.with_labels("task"), rng,', 'drawn_tasks(features.with_labels("class"), rng,'),
            ("gaps.abs().sum() / len(probabilities)", "gaps.sum().abs() / len(probabilities)"),
            ("apart = self.confusion.clone().fill_diagonal_(0)", "apart = self.confusion.clone()"),
        ],
    ),
    "prediction.py": (
        _PREDICTION,
        [
            ("if outputs.shape[-1] != num_classes:", "if False:"),
            ("rows = outputs.double().softmax(-1).tolist()", "rows = outputs.double().tolist()"),
            (
                "for name, images in members.items() if not images]",
                "for name, images in members.items() if False]",
            ),
            ("predict = learner.adapt(support, num_steps)[-1]", "predict = learner.adapt(support, 0)[-1]"),
        ],
    ),
    "learner.py": (
        _LEARNERS,
        [
            ("if train_ways not in (None, num_outputs):", "if False:"),
            ("if self.tasks.kind != kind:", "if False:"),
            (
                "learner.adapt(Examples.of_one_task(inputs, targets), num_steps)[-1]",
                "learner.adapt(Examples.of_one_task(inputs, targets), num_steps)[0]",
            ),
            ("check_network(network, spec, self.device)\n", "pass\n"),
        ],
    ),
}
_CONSTRUCTORS = ("tests/fewshot/test_constructors.py",)

_ORIGINAL = ("tests/fewshot/test_original.py",)

_CLASS_DATA = ("tests/fewshot/test_class_data.py",)

_STATES = ("tests/fewshot/test_states.py",)

FAULTS = [
    *faults(
        "metarl/fewshot/weights.py",
        _STATES,
        ("(value.isnan() if frozen else ~value.isfinite())", "(~value.isfinite())"),
        ("(value.isnan() if frozen else ~value.isfinite())", "(value.isnan())"),
        ("if shape != needed:", "if False:"),
        ("if name not in own:", "if False:"),
    ),
    *faults(
        "metarl/fewshot/learner.py",
        _STATES,
        ("part.load_state_dict(before[name])", "pass"),
        ("if missing or more:", "if missing:"),
        ("part.check_state(state[place])", "pass"),
        ("if fault := fault_of(learner):", "if False:"),
    ),
    *faults("metarl/fewshot/prediction.py", _STATES, ("queries[:2]", "queries[:1]")),
    *faults(
        "metarl/fewshot/data/classes.py",
        _CLASS_DATA,
        ('if values.size and values.dtype.kind not in "biuU":', "if False:"),
        ("or examples.dtype != like.dtype:", "or False:"),
        ('places.argsort(kind="stable")', "(-places).argsort()"),
        ("if len(shapes) > 1:", "if False:"),
    ),
    *faults(
        "metarl/fewshot/data/groups.py",
        _CLASS_DATA,
        ("if groups.members.shape[1] != len(classes):", "if False:"),
        ("if isinstance(groups, str):", "if False:"),
    ),
    *faults(
        "metarl/fewshot/original.py",
        _ORIGINAL,
        ("if len(present) != len(self._parts) or not", "if not"),
        ('and normalisation != "frozen" else None', "else None"),
        ("copied.freeze_as(own)", "pass"),
        ("layer.copied.training = training", "pass"),
        ("own._buffers] if type(own) in BATCH_NORMS", "own._buffers] if False"),
        ("is_averaged = is_norm and own.running_mean is not None", "is_averaged = is_norm"),
    ),
    *faults("metarl/fewshot/metric.py", _ORIGINAL, ("self._head_at_start.check()", "pass")),
    *faults(
        "metarl/fewshot/learner.py",
        _CONSTRUCTORS,
        ('if "config" in arguments:', "if False:"),
        ("dict(zip(names, values, strict=False)) | named", "dict(zip(names[1:], values, strict=False)) | named"),
    ),
    *faults("metarl/runs/configs.py", _CONSTRUCTORS, ("if isinstance(value, kind):", "if True:")),
    *faults(
        "experiments/fewshot/figures.py",
        ("tests/fewshot/test_diagnosis.py",),
        ("totals[drawn].unsqueeze(1)", "totals[drawn].unsqueeze(0)"),
        ("middles = [(start + end - 1) / 2 for", "middles = [(start + end) / 2 for"),
        ("sizes = sorted(by_size)", "sizes = list(by_size)"),
    ),
    *(
        Fault(f"metarl/fewshot/{file}", before, after, tests)
        for file, (tests, pairs) in _PAIRS.items()
        for before, after in pairs
    ),
]
