"""
### Retraining

Curated labels become a candidate of each kind, and a candidate becomes the champion only if it passes every gate.

- **snapshot** freezes the labels into a data set: duplicates dropped, split by group; what was ever in test stays so.
- **train** fits a candidate, saves a checkpoint each epoch, and goes on from it when it is tried again. The encoder is
  left out where no label has a text.
- **optimize** builds what serves it: the fastest engine and precision whose answers are those in float32.
- **evaluate** asks candidate and champion about the same frozen test images, and the stored artifact in a process of
  its own.
- **gate** decides. *A gate that failed ends the run here*, with the reasons in the log and no retry; its link
  *Evaluation* leads to the page with all figures. `docs/runbook.md` says what to do then.
- **approve** asks a human where `require_approval` says so: three days, and refusal is the default.
- **promote** makes the candidate the champion, unless another one was promoted since the evaluation, and starts
  `catalog_retag`.

It runs every Sunday morning, and when a nightly run found that photos have drifted, once a week at most.

**Parameters**: `kinds`, classifier, encoder or both; `classifier_base` and `encoder_base`, other starting points than
the configured ones; `classifier_freeze` and `encoder_freeze`, what is not trained; `classifier_epochs` and
`encoder_epochs`, passes over the data; `classifier_learning_rate` and `encoder_learning_rate`; `mine_hard_negatives`,
batches of photos that are easily confused; `from_scratch`, large steps for bases with random weights; `seed`;
`require_approval`.

**By hand**: each task logs its command. The whole flow without Airflow is `python -m jobs retrain`.
"""

from datetime import timedelta

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable, Param, TaskGroup
from catalog_airflow.assets import DRIFT, PROMOTION
from catalog_airflow.defaults import DEFAULT_ARGS, TAGGING_POOL, TRAINING_PRIORITY
from catalog_airflow.operators import GateOperator, JobOperator, PromotionApproval

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
LEFT_OUT = {
    "classifier": "{{ params.kinds == 'encoder' }}",
    "encoder": f"{{{{ params.kinds == 'classifier' or (params.kinds == 'both' and {WITHOUT_TEXTS}) }}}}",
}
PARAMS = {
    "kinds": Param(
        "both",
        type="string",
        enum=["both", "classifier", "encoder"],
        title="Kinds",
        description="What to train; both leaves the encoder out where no label has a text",
    ),
    "classifier_base": Param(
        None,
        type=["null", "string"],
        title="Classifier base",
        description="Directory or hub id; empty: CATALOG_CLASSIFIER_BASE",
    ),
    "encoder_base": Param(
        None,
        type=["null", "string"],
        title="Encoder base",
        description="Directory or hub id; empty: CATALOG_ENCODER_BASE",
    ),
    "classifier_freeze": Param(
        None,
        type=["null", "string"],
        enum=[None, "backbone", "early", "nothing"],
        title="Classifier freeze",
        description="What of the classifier keeps its weights: all but the head, the early layers, or nothing",
    ),
    "encoder_freeze": Param(
        None,
        type=["null", "string"],
        enum=[None, "early", "nothing"],
        title="Encoder freeze",
        description="What of the encoder keeps its weights: the early layers, or nothing",
    ),
    "classifier_epochs": Param(
        None,
        type=["null", "integer"],
        minimum=1,
        title="Classifier epochs",
        description="Passes over the data; empty: the default",
    ),
    "encoder_epochs": Param(
        None,
        type=["null", "integer"],
        minimum=0,
        title="Encoder epochs",
        description="Passes over the data, 0 takes the base as it is; empty: the default",
    ),
    "classifier_learning_rate": Param(
        None,
        type=["null", "number"],
        exclusiveMinimum=0,
        title="Classifier learning rate",
        description="The highest; empty: the default",
    ),
    "encoder_learning_rate": Param(
        None,
        type=["null", "number"],
        exclusiveMinimum=0,
        title="Encoder learning rate",
        description="The highest; empty: the default",
    ),
    "mine_hard_negatives": Param(
        False,
        type="boolean",
        title="Mine hard negatives",
        description="Make the encoder's batches of photos that are easily confused",
    ),
    "from_scratch": Param(
        False, type="boolean", title="From scratch", description="Large steps, for bases with random weights"
    ),
    "seed": Param(None, type=["null", "integer"], title="Seed", description="Another seed than the default"),
    "require_approval": Param(
        False, type="boolean", title="Require approval", description="Ask a human before a candidate is promoted"
    ),
}


def add_chain(kind: str) -> TaskGroup:
    """The tasks that bring one kind of model from the snapshot to a promotion."""
    with TaskGroup(kind) as group:
        train = JobOperator(
            task_id="train",
            command="train",
            argument=kind,
            options=RUN
            | {
                "snapshot": f"{{{{ {SNAPSHOT}['snapshot_id'] }}}}",
                "seed": "{{ params.seed }}",
                "from-scratch": "{{ params.from_scratch }}",
            }
            | OPTIONS[kind],
            skip_when=LEFT_OUT[kind],
            pool=TAGGING_POOL,
            priority_weight=TRAINING_PRIORITY,
            execution_timeout=timedelta(hours=24),
        )
        optimize = JobOperator(
            task_id="optimize",
            command="optimize",
            argument=kind,
            options=RUN,
            pool=TAGGING_POOL,
            priority_weight=TRAINING_PRIORITY,
        )
        evaluate = JobOperator(
            task_id="evaluate",
            command="evaluate",
            argument=kind,
            options=RUN,
            pool=TAGGING_POOL,
            priority_weight=TRAINING_PRIORITY,
        )
        gate = GateOperator(task_id="gate", command="gate", argument=kind, options=RUN)
        approve = PromotionApproval(
            task_id="approve",
            is_required="{{ params.require_approval }}",
            subject=f"Promote the new {kind}?",
            body=f"{{{{ ti.xcom_pull(task_ids='{kind}.gate')['approval_text'] }}}}",
        )
        promote = JobOperator(task_id="promote", command="promote", argument=kind, options=RUN, outlets=[PROMOTION])

        train >> optimize >> evaluate >> gate >> approve >> promote
    return group


with DAG(
    dag_id="model_retrain",
    description="Curated labels become new champions, if they pass the gates",
    doc_md=__doc__,
    schedule=AssetOrTimeSchedule(timetable=CronTriggerTimetable("0 4 * * 0", timezone="UTC"), assets=DRIFT),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    params=PARAMS,
    render_template_as_native_obj=True,
    tags=["catalog"],
):
    snapshot = JobOperator(task_id="snapshot", command="snapshot")

    snapshot >> [add_chain("classifier"), add_chain("encoder")]
