"""Random configurations of all supported classes: small, with unusual values that diffusers allows."""


def unet(random):
    levels = random.randint(1, 3)
    groups = random.choice([1, 2, 3, 4])
    head = random.choice([2, 4, None])
    unit = groups * (head or 1) * (1 if groups * (head or 1) % 2 == 0 else 2)
    channels = [unit * random.randint(2, max(2, 16 // unit)) for _ in range(levels)]
    smallest = 2 ** (levels - 1)
    # A group of a norm must have at least two values.
    size = [smallest * random.randint(least, max(2, 12 // smallest)) for least in (2, 1)]
    config = dict(
        sample_size=random.choice([tuple(size), size[0]]),
        in_channels=random.randint(1, 5), out_channels=random.randint(1, 5),
        center_input_sample=random.random() < 0.3,
        time_embedding_dim=random.choice([None, 10, 24]),
        freq_shift=random.randint(0, 1) if channels[0] > 2 else 0,
        flip_sin_to_cos=random.random() < 0.5,
        down_block_types=tuple(random.choice(["DownBlock2D", "AttnDownBlock2D"]) for _ in range(levels)),
        up_block_types=tuple(random.choice(["UpBlock2D", "AttnUpBlock2D"]) for _ in range(levels)),
        block_out_channels=tuple(channels), layers_per_block=random.randint(1, 2),
        mid_block_type=random.choice(["UNetMidBlock2D"] * 4 + [None]),
        mid_block_scale_factor=random.choice([1, 1, 1.4]),
        downsample_padding=random.randint(0, 1), act_fn=random.choice(["silu", "swish"]),
        attention_head_dim=head, norm_num_groups=groups, norm_eps=random.choice([1e-5, 1e-6]),
        attn_norm_num_groups=random.choice([None, groups]),
        resnet_time_scale_shift=random.choice(["default", "scale_shift"]),
        add_attention=random.random() < 0.7)
    conditioning = random.choice([None, "table", "timestep"])
    if conditioning == "table":
        config["num_class_embeds"] = random.randint(1, 12)
    elif conditioning == "timestep":
        config["class_embed_type"] = "timestep"
    return config


def _autoencoder(random):
    levels = random.randint(1, 4)
    groups = random.choice([1, 2, 3])
    return dict(
        in_channels=random.randint(1, 4), out_channels=random.randint(1, 4),
        down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
        # At least two channels per group: with one, the norm cancels the bias, and its gradient is only rounding.
        block_out_channels=tuple(groups * random.randint(2, 12 // groups) for _ in range(levels)),
        layers_per_block=random.randint(1, 2), act_fn=random.choice(["silu", "swish"]),
        latent_channels=random.randint(1, 5), norm_num_groups=groups, sample_size=32,
        scaling_factor=random.choice([0.18215, 0.5, 1.3]), mid_block_add_attention=random.random() < 0.7)


def autoencoder_kl(random):
    return dict(
        _autoencoder(random), use_quant_conv=random.random() < 0.5, use_post_quant_conv=random.random() < 0.5,
        shift_factor=random.choice([None, 0.1]))


def vq_model(random):
    return dict(
        _autoencoder(random), num_vq_embeddings=random.randint(1, 40),
        vq_embed_dim=random.choice([None, 1, 2, 6]))


def image_size(config, random):
    """A height and width that an autoencoder accepts."""
    factor = 2 ** (len(config["block_out_channels"]) - 1)
    return [factor * random.randint(least, 24 // factor) for least in (2, 1)]


SOLVERS = [
    "DPMSolverMultistepScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "HeunDiscreteScheduler",
    "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"]


def scheduler(random):
    """Class name, configuration, steps and η."""
    if random.random() < 0.6:
        return solver(random)
    name = random.choice(["DDIMScheduler", "DDIMScheduler", "DDPMScheduler"])
    config, steps = _schedule(random, ["epsilon", "v_prediction", "sample"])
    config.update(clip_sample=random.random() < 0.5, clip_sample_range=random.choice([1.0, 0.7]))
    if name == "DDIMScheduler":
        config["set_alpha_to_one"] = random.random() < 0.5
        # From pure noise with η near 1, diffusers takes the root of a negative number.
        eta = 0.0 if config["rescale_betas_zero_snr"] else random.choice([0.0, 0.0, 0.5, 1.0])
        return name, config, steps, eta
    config["variance_type"] = random.choice(["fixed_small", "fixed_small_log", "fixed_large"])
    if random.random() < 0.2:
        config["beta_schedule"] = "sigmoid"
    return name, config, steps, 0.0


def _schedule(random, predictions):
    """The keys that all schedulers have, and the number of steps."""
    timesteps = random.choice([1000, 1000, 250, 40])
    prediction = random.choice(predictions)
    config = dict(
        num_train_timesteps=timesteps, beta_start=random.choice([0.0001, 0.0015]),
        beta_end=random.choice([0.02, 0.0195]), prediction_type=prediction,
        beta_schedule=random.choice(["linear", "scaled_linear", "squaredcos_cap_v2"]),
        timestep_spacing=random.choice(["leading", "trailing", "linspace"]),
        # With ε-prediction, a schedule that ends in pure noise divides by zero.
        rescale_betas_zero_snr=prediction != "epsilon" and random.random() < 0.3)
    if config["timestep_spacing"] == "leading":
        config["steps_offset"] = random.randint(0, 1)
    if random.random() < 0.2:
        config["trained_betas"] = [random.uniform(0.001, 0.05) for _ in range(timesteps)]
    return config, random.randint(1, 12)


def solver(random):
    """The same for the classes that solve the diffusion ODE or SDE."""
    name = random.choice(SOLVERS)
    predictions = ["epsilon", "v_prediction"] if "Ancestral" in name else ["epsilon", "v_prediction", "sample"]
    config, steps = _schedule(random, predictions)
    if name == "HeunDiscreteScheduler":
        del config["rescale_betas_zero_snr"]
        config.update(clip_sample=random.random() < 0.3, clip_sample_range=0.7)
    if "Ancestral" not in name:
        config["use_karras_sigmas"] = random.random() < 0.4
        # Without a second noise level, the last one would be infinitely far away.
        steps = max(2, steps)
    if name in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "EulerDiscreteScheduler"):
        config["final_sigmas_type"] = random.choice(["zero", "sigma_min"])
    if name == "DPMSolverMultistepScheduler":
        config.update(
            algorithm_type=random.choice(["dpmsolver++", "sde-dpmsolver++"]), solver_order=random.randint(1, 3),
            solver_type=random.choice(["midpoint", "heun"]), lower_order_final=random.random() < 0.7,
            euler_at_final=random.random() < 0.3)
        if config["use_karras_sigmas"]:
            # diffusers truncates its interpolated timesteps of the cosine schedule, where rounding decides.
            config["beta_schedule"] = random.choice(["linear", "scaled_linear"])
    if name == "UniPCMultistepScheduler":
        config.update(
            solver_order=random.randint(1, 3), solver_type=random.choice(["bh1", "bh2"]),
            predict_x0=random.random() < 0.7, lower_order_final=random.random() < 0.7,
            disable_corrector=random.choice([[], [0], [1, 3]]))
        # With the others, diffusers' last step divides zero by zero.
        if not (config["solver_type"] == "bh2" and config["predict_x0"] and config["lower_order_final"]):
            config["final_sigmas_type"] = "sigma_min"
    if config.get("use_karras_sigmas"):
        # The last Karras level is that of timestep 0: a step from there to the same level divides by zero.
        if name == "DPMSolverMultistepScheduler":
            config["final_sigmas_type"] = "zero"
        if name == "UniPCMultistepScheduler":
            config["lower_order_final"] = True
    # Steps from nearly pure noise to little noise cancel the digits that a comparison needs.
    if name.startswith(("Euler", "Heun")) or not config.get("predict_x0", True):
        config["beta_schedule"] = random.choice(["linear", "scaled_linear"])
        config["rescale_betas_zero_snr"] = False
        if name.startswith("Heun"):
            del config["rescale_betas_zero_snr"]
    if config["num_train_timesteps"] > 40 or config.get("rescale_betas_zero_snr"):
        config.pop("trained_betas", None)
    if name == "EulerDiscreteScheduler" and config["final_sigmas_type"] == "zero":
        config["interpolation_type"] = random.choice(["linear", "linear", "log_linear"])
    return name, config, steps, 0.0
