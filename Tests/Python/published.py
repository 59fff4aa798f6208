"""The configurations of published models, as in their config.json on the hub."""

from diffusers import AutoencoderKL, UNet2DModel


def sd_vae_ft_mse():
    """stabilityai/sd-vae-ft-mse: 83.65 million parameters. Its file uses the old names of attention weights."""
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, sample_size=256, act_fn="silu",
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, norm_num_groups=32,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)


def ddpm_cifar10_32():
    """google/ddpm-cifar10-32: 35.75 million parameters."""
    return UNet2DModel(
        sample_size=32, in_channels=3, out_channels=3, act_fn="silu", attention_head_dim=None,
        block_out_channels=(128, 256, 256, 256), center_input_sample=False,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"), downsample_padding=0,
        flip_sin_to_cos=False, freq_shift=1, layers_per_block=2, mid_block_scale_factor=1, norm_eps=1e-6,
        norm_num_groups=32, time_embedding_type="positional")


def ldm_celebahq_256():
    """CompVis/ldm-celebahq-256, its U-Net: 274.06 million parameters."""
    return UNet2DModel(
        sample_size=64, in_channels=3, out_channels=3, act_fn="silu", attention_head_dim=32,
        block_out_channels=(224, 448, 672, 896), center_input_sample=False,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"), downsample_padding=1,
        flip_sin_to_cos=True, freq_shift=0, layers_per_block=2, mid_block_scale_factor=1, norm_eps=1e-5,
        norm_num_groups=32, time_embedding_type="positional")


UNETS = {"ddpm-cifar10-32": (ddpm_cifar10_32, 35_746_307), "ldm-celebahq-256": (ldm_celebahq_256, 274_056_163)}
SD_VAE_PARAMETERS = 83_653_863
