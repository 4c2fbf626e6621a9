"""
### Retraining

Trains a candidate of each kind on curated labels. A candidate becomes the champion only if it passes every gate.

- **snapshot** freezes the labels into a data set. It removes duplicates and splits by group; test images stay in the
  test set.
- **train** trains a candidate on all GPUs of its worker. It saves a checkpoint after each epoch, from which a retry
  resumes. The encoder is skipped if no label has a text.
- **optimize** builds the fastest engine and precision whose predictions agree with those in float32.
- **evaluate** scores candidate and champion on the same frozen test images, and benchmarks the stored artifact in its
  own process.
- **gate** applies the gates. *A failed gate ends the run here* without a retry. The reasons are in its log, and its
  link *Evaluation* opens the page with all figures. `docs/runbook.md` says what to do next.
- **approve** waits up to three days for a person's approval if `require_approval` is set. No response is a rejection.
- **promote** makes the candidate the champion, unless another one was promoted after the evaluation, and starts
  `catalog_retag`.

Runs on `CATALOG_RETRAIN_SCHEDULE`, by default every Sunday morning. Also runs after a nightly run that detected drift,
at most once a week.

**Parameters**: `kinds` trains the classifier, the encoder or both. `classifier_base` and `encoder_base` replace the
configured base models. `classifier_freeze` and `encoder_freeze` choose the layers that are not trained.
`classifier_epochs` and `encoder_epochs` set the passes over the data. `budget_minutes` trains as many epochs as fit
into this time. `classifier_learning_rate` and `encoder_learning_rate` set the highest learning rates.
`mine_hard_negatives` builds batches of images that are easily confused. `from_scratch` takes large steps, for base
models with random weights. `seed` sets the random seed. `require_approval` requires a person's approval before a
promotion.

**On the command line**: each task logs its command. To run the whole flow without Airflow, use
`catalog retrain`.
"""

from datetime import timedelta

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable, Param, TaskGroup
from catalog_airflow.defaults import DEFAULT_ARGS, TRAINING_PRIORITY
from catalog_airflow.events import (
    describe_failed_gate,
    describe_failed_run,
    describe_promotion,
    describe_waiting_approval,
)
from catalog_airflow.notifications import notify
from catalog_airflow.operators import DRIFT, PROMOTION, GateOperator, JobOperator, PromotionApproval
from catalog_airflow.placement import place
from catalog_airflow.schedules import read_schedule

RUN = {"run": "{{ dag.dag_id }}/{{ run_id }}"}
SNAPSHOT = "ti.xcom_pull(task_ids='snapshot')"
WITHOUT_TEXTS = f"{SNAPSHOT}['images'] == {SNAPSHOT}['without_text']"
OPTIONS = {
    "classifier": {
        "base": "{{ params.classifier_base }}",
        "epochs": "{{ params.classifier_epochs }}",
        "learning-rate": "{{ params.classifier_learning_rate }}",
        "freeze": "{{ params.classifier_freeze }}",
    },
    "encoder": {
        "base": "{{ params.encoder_base }}",
        "epochs": "{{ params.encoder_epochs }}",
        "learning-rate": "{{ params.encoder_learning_rate }}",
        "freeze": "{{ params.encoder_freeze }}",
        "mine-hard-negatives": "{{ params.mine_hard_negatives }}",
    },
}
SKIP = {
    "classifier": "{{ params.kinds == 'encoder' }}",
    "encoder": f"{{{{ params.kinds == 'classifier' or (params.kinds == 'both' and {WITHOUT_TEXTS}) }}}}",
}
PARAMS = {
    "kinds": Param(
        "both",
        type="string",
        enum=["both", "classifier", "encoder"],
        title="Kinds",
        description="What to train. With both, the encoder is skipped if no label has a text",
    ),
    "classifier_base": Param(
        None,
        type=["null", "string"],
        title="Classifier base",
        description="Directory or hub id. Default: CATALOG_CLASSIFIER_BASE",
    ),
    "encoder_base": Param(
        None,
        type=["null", "string"],
        title="Encoder base",
        description="Directory or hub id. Default: CATALOG_ENCODER_BASE",
    ),
    "classifier_freeze": Param(
        None,
        type=["null", "string"],
        enum=[None, "backbone", "early", "nothing"],
        title="Classifier freeze",
        description="Layers that are not trained: all except the head, the early ones, or none",
    ),
    "encoder_freeze": Param(
        None,
        type=["null", "string"],
        enum=[None, "early", "nothing"],
        title="Encoder freeze",
        description="Layers that are not trained: the early ones, or none",
    ),
    "classifier_epochs": Param(
        None,
        type=["null", "integer"],
        minimum=1,
        title="Classifier epochs",
        description="Passes over the data",
    ),
    "encoder_epochs": Param(
        None,
        type=["null", "integer"],
        minimum=0,
        title="Encoder epochs",
        description="Passes over the data. 0 takes the base model as it is",
    ),
    "budget_minutes": Param(
        None,
        type=["null", "number"],
        exclusiveMinimum=0,
        title="Budget in minutes",
        description="Train as many epochs of each model as fit into this time. Default: 60 on a CPU, unless its epochs "
        "are set",
    ),
    "classifier_learning_rate": Param(
        None,
        type=["null", "number"],
        exclusiveMinimum=0,
        title="Classifier learning rate",
        description="Highest learning rate of the schedule",
    ),
    "encoder_learning_rate": Param(
        None,
        type=["null", "number"],
        exclusiveMinimum=0,
        title="Encoder learning rate",
        description="Highest learning rate of the schedule",
    ),
    "mine_hard_negatives": Param(
        False,
        type="boolean",
        title="Mine hard negatives",
        description="Build batches of the encoder from images that are easily confused",
    ),
    "from_scratch": Param(
        False, type="boolean", title="From scratch", description="Take large steps, for base models with random weights"
    ),
    "seed": Param(None, type=["null", "integer"], title="Seed", description="Random seed"),
    "require_approval": Param(
        False, type="boolean", title="Require approval", description="Ask a person before a candidate is promoted"
    ),
}


def add_chain(kind: str) -> TaskGroup:
    """Add the tasks for one kind of model, from training to promotion."""
    with TaskGroup(kind) as group:
        train = JobOperator(
            task_id="train",
            command="train",
            argument=kind,
            options=RUN
            | {
                "snapshot": f"{{{{ {SNAPSHOT}['snapshot_id'] }}}}",
                "budget-minutes": "{{ params.budget_minutes }}",
                "seed": "{{ params.seed }}",
                "from-scratch": "{{ params.from_scratch }}",
            }
            | OPTIONS[kind],
            skip_when=SKIP[kind],
            **place("train"),
            priority_weight=TRAINING_PRIORITY,
            execution_timeout=timedelta(hours=24),
        )
        optimize = JobOperator(
            task_id="optimize",
            command="optimize",
            argument=kind,
            options=RUN,
            **place("evaluate"),
            priority_weight=TRAINING_PRIORITY,
        )
        evaluate = JobOperator(
            task_id="evaluate",
            command="evaluate",
            argument=kind,
            options=RUN,
            **place("evaluate"),
            priority_weight=TRAINING_PRIORITY,
        )
        gate = GateOperator(
            task_id="gate",
            command="gate",
            argument=kind,
            options=RUN,
            on_failure_callback=notify(describe_failed_gate),
        )
        approve = PromotionApproval(
            task_id="approve",
            is_required="{{ params.require_approval }}",
            subject=f"Promote the new {kind}?",
            body=f"{{{{ ti.xcom_pull(task_ids='{kind}.gate')['approval_text'] }}}}",
            notifiers=[notify(describe_waiting_approval)],
        )
        promote = JobOperator(
            task_id="promote",
            command="promote",
            argument=kind,
            options=RUN,
            outlets=[PROMOTION],
            on_success_callback=notify(describe_promotion),
        )

        train >> optimize >> evaluate >> gate >> approve >> promote
    return group


WEEKLY = read_schedule("CATALOG_RETRAIN_SCHEDULE", "0 4 * * 0")

with DAG(
    dag_id="model_retrain",
    description="Train new models on the curated labels, and promote those that pass the gates",
    doc_md=__doc__,
    schedule=AssetOrTimeSchedule(timetable=CronTriggerTimetable(WEEKLY, timezone="UTC"), assets=DRIFT)
    if WEEKLY
    else [DRIFT],
    catchup=False,
    max_active_runs=1,
    on_failure_callback=notify(describe_failed_run),
    default_args=DEFAULT_ARGS | place("plan"),
    params=PARAMS,
    render_template_as_native_obj=True,
    tags=["catalog"],
):
    snapshot = JobOperator(task_id="snapshot", command="snapshot")

    snapshot >> [add_chain("classifier"), add_chain("encoder")]
