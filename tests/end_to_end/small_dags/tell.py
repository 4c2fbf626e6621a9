"""Print a parameter of the run and environment variables."""

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Param

with DAG("tell", schedule=None, params={"word": Param("none", type="string")}):
    BashOperator(
        task_id="tell",
        pool="catalog_gpu",
        bash_command='echo "word {{ params.word }}"; echo "$CATALOG_DATABASE_URL|$CATALOG_S3_ENDPOINT_URL|$PYTHONPATH"',
    )
