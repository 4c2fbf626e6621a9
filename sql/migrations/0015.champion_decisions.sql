-- What people decide about champions on the page "Models": the only way to start the DAG model_decision with effect.

CREATE TABLE catalog.champion_decisions (
    decision_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind          text NOT NULL CHECK (kind IN ('classifier', 'encoder')),
    run_id        text,
    to_version_id integer,
    reason        text NOT NULL,
    decided_by    text NOT NULL,
    decided_at    timestamptz NOT NULL DEFAULT now(),
    done_at       timestamptz,
    FOREIGN KEY (to_version_id, kind) REFERENCES catalog.model_versions (model_version_id, kind),
    CHECK ((run_id IS NULL) <> (to_version_id IS NULL))
);
COMMENT ON TABLE catalog.champion_decisions IS 'Who decided to promote or roll back what; each decision is carried out once';
COMMENT ON COLUMN catalog.champion_decisions.run_id IS 'The run whose candidate to promote; null for rollbacks';
COMMENT ON COLUMN catalog.champion_decisions.to_version_id IS 'The version to roll back to; null for promotions';
COMMENT ON COLUMN catalog.champion_decisions.done_at IS 'When it was carried out, in the transaction of the promotion; null before';
