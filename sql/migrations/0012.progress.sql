-- How far each running job is, for the pages and for people who wait.

-- Not logged: a row is of use for seconds only, and is written every second or two.
CREATE UNLOGGED TABLE catalog.job_progress (
    run_id text NOT NULL,
    task text NOT NULL,
    stage text NOT NULL,
    done bigint NOT NULL,
    total bigint,
    unit text NOT NULL,
    epoch integer,
    epochs integer,
    loss double precision,
    images_per_second double precision,
    seconds_left double precision,
    started_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, task)
);
COMMENT ON TABLE catalog.job_progress IS 'One row for each job that runs now. The job removes it when it ends; the row of a killed job stops changing';
COMMENT ON COLUMN catalog.job_progress.total IS 'What done counts up to in this stage; null where nobody knows';
COMMENT ON COLUMN catalog.job_progress.seconds_left IS 'Until the end of the stage, at the mean speed of the stage so far';
