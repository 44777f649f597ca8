"""Transfer learning for pictures, as a DVC pipeline tracked in MLflow.

The DAG, one module a stage in `pipeline.stages`:

    prepare -> extract_features -> train_head -> finetune -> evaluate

Reading order: `__main__` (the only runner), `config` (params.yaml and conf/ to
one checked config), the stages, then the rooms they use: `sources`, `images`,
`splitting`, `manifest`, `outputs` for the data; `backbones`, `cuts`, `activations`,
`heads`, `fitting`, `model_file` for the network; `metrics`, `resampling`, `figures`
for the verdict; `tracking` and `tracking_store` for MLflow. What a finished model is
used for: `classifier` (pictures to probabilities), `predict`, `export`; `promotion`
with its `gate`, `registry` and `lease`; `serving`, `logged_model` and `http_guard`, which travel
with the model, `server` and `demo`. Imports point from the first to the last, never back.
"""
