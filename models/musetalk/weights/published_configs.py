"""What the published configs of MuseTalk say."""

from __future__ import annotations

from models.checkpoints.configs import KnownConfig

UNET = KnownConfig(
    {
        "act_fn": "silu",
        "attention_head_dim": 8,
        "block_out_channels": [320, 640, 1280, 1280],
        "center_input_sample": False,
        "cross_attention_dim": 384,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 8,
        "layers_per_block": 2,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "norm_num_groups": 32,
        "out_channels": 4,
        "sample_size": 64,
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    }
)
VAE = KnownConfig(
    {
        "act_fn": "silu",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": 256,
        "scaling_factor": 0.18215,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    }
)
TAESD = KnownConfig(
    {
        "act_fn": "relu",
        "decoder_block_out_channels": [64] * 4,
        "encoder_block_out_channels": [64] * 4,
        "in_channels": 3,
        "latent_channels": 4,
        "latent_magnitude": 3,
        "latent_shift": 0.5,
        "num_decoder_blocks": [3, 3, 3, 1],
        "num_encoder_blocks": [1, 3, 3, 3],
        "out_channels": 3,
        "scaling_factor": 1.0,
        "upsampling_scaling_factor": 2,
    },
    is_complete=False,
)
WHISPER = KnownConfig(
    {
        "activation_function": "gelu",
        "d_model": 384,
        "encoder_attention_heads": 6,
        "encoder_ffn_dim": 1536,
        "encoder_layers": 4,
        "max_source_positions": 1500,
        "num_mel_bins": 80,
        "scale_embedding": False,
    },
    is_complete=False,
)
MEL = KnownConfig(
    {
        "chunk_length": 30,
        "dither": 0.0,
        "feature_size": 80,
        "hop_length": 160,
        "n_fft": 400,
        "padding_value": 0.0,
        "sampling_rate": 16000,
    },
    is_complete=False,
)
