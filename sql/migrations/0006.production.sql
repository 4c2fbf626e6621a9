ALTER TABLE catalog.model_versions
    ADD COLUMN engine text NOT NULL DEFAULT 'torch' CHECK (engine IN ('torch', 'openvino')),
    ADD COLUMN precision text CHECK (precision IN ('fp32', 'bf16', 'fp16', 'int8')),
    ADD COLUMN built_from integer REFERENCES catalog.model_versions,
    ADD COLUMN built_at timestamptz,
    ADD COLUMN fidelity jsonb;
CREATE INDEX model_versions_built_from ON catalog.model_versions (built_from, built_at DESC);
COMMENT ON COLUMN catalog.model_versions.engine IS 'What computes it: torch, or a graph of OpenVINO on the CPU';
COMMENT ON COLUMN catalog.model_versions.precision IS 'In which it is computed; null where none was chosen, and each machine takes its own';
COMMENT ON COLUMN catalog.model_versions.built_from IS 'The trained version of which this one is the production artifact';
COMMENT ON COLUMN catalog.model_versions.fidelity IS 'What was tried when it was built, and how its answers differed from float32';
