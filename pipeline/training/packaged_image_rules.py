"""What is known about the preview images of workflow templates, from looking at every one of them.

Names are file stems (`template-1`) or template names (then all of its previews).
"""

from __future__ import annotations

import re

SOURCE = "comfyui-workflow-templates"
LICENCE = "MIT (package); the generators' own terms are not restated"
MIN_SIDE_PX = 256

GROUPS = {"Image", "Character & Fashion", "Product & Ads", "Brand & Design"}
"""Groups of the index whose previews are outputs of image generators; tools, audio, video and 3D are not."""

TAGS_WITH_OTHER_PIXELS = {"Inpainting", "Outpainting", "Image Upscale", "Remove Background", "Vector"}

INPUT_FIRST = {"image_flux2_klein_image_edit_9b_distilled", "templates-assemble_dieline"}
"""Pairs whose second file is the output; in all other pairs it is the first (prompts and pictures compared)."""

_BADGE = "vendor badge laid over the corner"
_COLLAGE = "collage of inputs and output"
_UNCLEAR = "prompt and picture do not tell input from output"
EXCLUDED = {
    "api_bfl_flux_1_kontext_max_image": _BADGE,
    "api_bfl_flux_1_kontext_multiple_images_input": _BADGE,
    "api_google_gemini_image": _BADGE,
    "api_luma_photon_i2i": _BADGE,
    "api_openai_image_1_i2i": _BADGE,
    "api_openai_image_1_inpaint": _BADGE,
    "api_openai_image_1_multi_inputs": _BADGE,
    "api_recraft_image_gen_with_color_control": _BADGE,
    "api_recraft_image_gen_with_style_control": _BADGE,
    "api_runway_reference_to_image": _BADGE,
    "api_runway_text_to_image": _BADGE,
    "api_stability_ai_i2i": _BADGE,
    "api_stability_ai_sd3.5_i2i": _BADGE,
    "api_wan_text_to_image": _BADGE,
    "hidream_e1_1": "label 'Before' or 'After' laid over the corner",
    "hidream_e1_full": "label 'Before' or 'After' laid over the corner",
    "api_flux2": _COLLAGE,
    "api_from_photo_2_miniature": _COLLAGE,
    "api_kling_o3_image": _COLLAGE,
    "api_krea2_style_reference": _COLLAGE,
    "api_recraft_style_reference": _COLLAGE,
    "api_reve_image_remix": _COLLAGE,
    "image_flux2_fp8": _COLLAGE,
    "api_luma_uni_1_image_edit": "letterboxed",
    "image_flux2_klein_9b_kv_image_edit": "letterboxed",
    "templates_3d_match_game_art_style.app": "object on a black ground",
    "api_grok_imagine_image_quality_image_edit": _UNCLEAR,
    "image_boogu_image_0_1_edit": _UNCLEAR,
    "image_qwen_image_edit": _UNCLEAR,
    "template_qwen_image_edit_2511_systms_action": _UNCLEAR,
    "templates-color_illustration": _UNCLEAR,
    "templates-image_to_real": _UNCLEAR,
    "video_bernini_r_image_editing": _UNCLEAR,
    "api_openai_dall_e_2_t2i": "looks like a photograph of an old painting",
}
"""Looked at on contact sheets and thrown out; rules that need no looking are in `Catalogue.exclusion`."""

UNLISTED = {
    "api_ideogram_v3_t2i": ("Ideogram 3", "closed: Ideogram"),
    "api_openai_dall_e_3_t2i": ("DALL-E 3", "closed: OpenAI"),
    "api_reve_image_create": ("Reve", "closed: Reve"),
    "api_stability_ai_sd3.5_t2i": ("SD3.5", "SD3"),
    "api_stability_ai_stable_image_ultra_t2i": ("Stable Image Ultra", "SD3"),
    "default": ("SD1.5", "SD1/2"),
}
"""Generator and decoder family of previews whose templates have left the index but name their model."""

VENDOR_NAMES = {
    "FLUX",
    "Google",
    "OpenAI",
    "ByteDance",
    "Qwen",
    "Stability",
    "Kling",
    "Nvidia",
    "Gemini3 Pro Image Preview",
    "Google Gemini Image",
    "Wan2.1",
}
"""Entries of an index row's `models` that name a maker or a base, passed over where a row says more."""

GENERATOR_BY_TEMPLATE = {
    "image_hidream_o1": "HiDream-O1",
    "image_hidream_o1_dev": "HiDream-O1",
    "hidream_i1_dev": "HiDream-I1",
    "hidream_i1_fast": "HiDream-I1",
    "hidream_i1_full": "HiDream-I1",
    "image_netayume_lumina_t2i": "NetaYume Lumina",
    "image_chroma1_radiance_text_to_image": "Chroma1-Radiance",
    "sdxlturbo_example": "SDXL-Turbo",
    "image_ideogram4_t2i": "Ideogram 4",
    "api_ideogram_v4_t2i": "Ideogram 4",
}
"""Where the index names the model too coarsely, or another one."""

VAE_FAMILY = {
    "flux2-vae": "FLUX.2",
    "full_encoder_small_decoder": "FLUX.2",
    "qwen_image_vae": "Qwen-Image/Wan",
    "wan_2.1_vae": "Qwen-Image/Wan",
    "hunyuanvideo15_vae": "HunyuanVideo 1.5",
    "pixel_space": "pixel space (no decoder)",
    "'ae.safetensors'": "FLUX",
}
"""By part of the file name (quoted: all of it) that a workflow's VAE loader names.

The Qwen-Image VAE is a fine-tune of Wan 2.1's.
"""

CHECKPOINT_FAMILY = {
    "flux1-": "FLUX",
    "sd3.5_": "SD3",
    "sd_xl_": "SDXL",
    "v1-5": "SD1/2",
    "hidream_o1": "HiDream-O1",
    "NetaYume": "FLUX",
}
"""By part of the file name of a checkpoint that carries its own VAE; Lumina 2 models use the one of FLUX.1."""

CLOSED_FAMILY = {
    "FLUX.1": "FLUX",
    "FLUX.1 Kontext": "FLUX",
    "FLUX": "FLUX",
    "FLUX.2": "FLUX.2",
    "Ideogram 4": "FLUX.2",
    "Krea 2": "Qwen-Image/Wan",
}
"""Closed models whose open releases load a known VAE; assumed the same, so that a fold never splits them."""

DEPTH_MODEL_VAE = "vae-ft-mse-840000"
"""Loaded by depth estimators that prepare a control image, never for the output."""

DISTILLATION = re.compile(r"lightning|turbo|distill|2steps", re.IGNORECASE)
"""LoRA files that only cut the number of sampling steps."""
