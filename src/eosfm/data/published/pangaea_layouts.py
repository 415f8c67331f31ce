"""Where the data sets of PANGAEA (Marsocci et al. 2024, arXiv:2412.04204) come from and how they lie on disk: data only.

Layouts and download addresses are those of PANGAEA's loaders and of TorchGeo's classes. Sizes are computed from counts,
shapes and types of files ("unpacked"), or are the publishers' figures; nothing was downloaded here.
"""

from __future__ import annotations

from eosfm.data.published.satellite_files import Layout

_SN7_TREE = (
    "metadata_train.json, train/<area>/images_masked/global_monthly_<year>_<month>_mosaic_<area>.tif and "
    "train/<area>/labels_raster/global_monthly_<year>_<month>_mosaic_<area>_Buildings.tif, 59 areas"
)
_SN7_SOURCE = (
    "spacenet7.tar.gz of PANGAEA, which adds the rasters of labels (6 GB of pictures unpacked), from "
    "https://drive.google.com/uc?id=1BADSEjxYKFZZlM-tEkRUfHvHi5XdaVV9; pictures and polygons alone: "
    "https://spacenet.ai/sn7-challenge"
)

LAYOUTS: dict[str, Layout] = {
    "hls-burn-scars": Layout(
        "HLS Burn Scars",
        "training/<chip>_merged.tif with <chip>.mask.tif, and the same in validation/",
        "hls_burn_scars.tar.gz (804 chips, 5.1 GB unpacked) from https://huggingface.co/datasets/ibm-nasa-geospatial/hls_burn_scars",
    ),
    "sen1floods11-hand": Layout(
        "Sen1Floods11 (hand-labelled)",
        "v1.1/splits/flood_handlabeled/flood_{train,valid,test}_data.csv and v1.1/data/flood_events/HandLabeled/{S1Hand,S2Hand,"
        "LabelHand}/<chip>_{S1Hand,S2Hand,LabelHand}.tif",
        "gsutil -m rsync -r gs://sen1floods11/v1.1/splits v1.1/splits, and the same of v1.1/data/flood_events/HandLabeled "
        "(446 chips, 4.2 GB unpacked); see https://github.com/cloudtostreet/Sen1Floods11",
    ),
    "mados": Layout(
        "MADOS",
        "splits/{train,val,test}_X.txt and Scene_<n>/{10,20,60}/Scene_<n>_L2R_rhorc_<nm>_<crop>.tif with "
        "Scene_<n>/10/Scene_<n>_L2R_cl_<crop>.tif",
        "MADOS.zip (2,803 chips, 3.7 GB unpacked) from https://zenodo.org/records/10664073",
    ),
    "ai4smallfarms": Layout(
        "AI4SmallFarms",
        "sentinel-2-asia/{train,validate,test}/{images,masks}/<tile>_<country>.tif (or val, as PANGAEA renames validate)",
        "62 tiles of about 5 x 5 km, 0.12 GB unpacked, from https://doi.org/10.17026/dans-xy6-ngg6 (DANS Data Station "
        "Physical and Technical Sciences)",
    ),
    "pastis": Layout(
        "PASTIS",
        "metadata.geojson, DATA_S2/S2_<patch>.npy, DATA_S1A/S1A_<patch>.npy and ANNOTATIONS/TARGET_<patch>.npy, as in PASTIS-R "
        "and PASTIS-HD",
        "PASTIS-R.zip (2,433 patches, 54 GB) from https://zenodo.org/records/5735646",
    ),
    "croptype-southsudan": Layout(
        "Crop types of South Sudan",
        "southsudan/list_eval_partition.csv, southsudan/npy/southsudan_<id>.npz and southsudan/truth/southsudan_<id>.npz",
        "archive.tar.gz of SustainBench (its size is not stated) from "
        "https://drive.google.com/drive/folders/1WhVObtFOzYFiXBsbbrEGy1DUtv7ov7wF; the contents of "
        "africa_crop_type_mapping_v1.0 lie in the root",
    ),
    "dynamicearthnet": Layout(
        "DynamicEarthNet",
        "dynnet_training_splits/{train,val,test}.txt, whose lines name a folder of daily pictures, a label and a month: "
        "planet/..., labels/...",
        "rsync from the Technical University of Munich (about 525 GB): https://mediatum.ub.tum.de/1650201; splits from "
        "https://github.com/aysim/dynnet",
    ),
    "spacenet7": Layout("SpaceNet 7", _SN7_TREE, _SN7_SOURCE),
    "spacenet7-change": Layout("SpaceNet 7 change", _SN7_TREE, _SN7_SOURCE),
    "fivebillionpixels": Layout(
        "Five-Billion-Pixels",
        "{train,val,test}/imgs/*.tif (8 bit: near infrared, red, green, blue) with {train,val,test}/labels/*.tif of the same "
        "names, or with _24label appended",
        "150 scenes (29 GB of 8 bit pictures) from https://x-ytong.github.io/project/Five-Billion-Pixels.html, cut into tiles "
        "and sorted into the three folders as PANGAEA's dataset guide says",
    ),
    "xview2": Layout(
        "xView2",
        "{train,tier3,test}/images/<event>_<n>_{pre,post}_disaster.png with {train,tier3,test}/targets/<event>_<n>_post_disaster_"
        "target.png (or masks/<event>_<n>_post_disaster.png, as PANGAEA makes them)",
        "challenge training set (7.8 GB), test set (2.6 GB) and tier 3 from https://xview2.org/dataset, after signing up there",
    ),
    "biomassters": Layout(
        "BioMassters",
        "{train,val,test}_Data_list.csv (column chip_id), {train,test}_features/<chip>_{S1,S2}_<month 00 to 11>.tif and "
        "{train,test}_agbm/<chip>_agbm.tif; chips of val lie in train",
        "about 11,500 chips, 235 GB, from https://huggingface.co/datasets/nascetti-a/BioMassters; the three lists are PANGAEA's",
    ),
}  # fmt: skip
"""data set name, as `eosfm.data.catalogue.open_dataset` takes it -> its layout"""
