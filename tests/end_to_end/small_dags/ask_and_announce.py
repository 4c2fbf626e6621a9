"""Run the plugin's operators for approvals and announcements without jobs."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, Param
from catalog_airflow.events import describe_waiting_approval
from catalog_airflow.notifications import notify
from catalog_airflow.operators import AnnouncementOperator, PromotionApproval

NEWS = Asset(name="news", uri="x-test://news")
IS_ASKED = Param(True, type="boolean")

with DAG("ask", schedule=None, params={"is_asked": IS_ASKED}, render_template_as_native_obj=True):
    approve = PromotionApproval(
        task_id="approve",
        is_required="{{ params.is_asked }}",
        subject="May it?",
        body="{{ '| gate | verdict |' }}",
        retries=3,
        notifiers=[notify(describe_waiting_approval)],
    )
    approve >> EmptyOperator(task_id="go_on")

with DAG(
    "tell_news", schedule=None, params={"is_news": Param(True, type="boolean")}, render_template_as_native_obj=True
):
    AnnouncementOperator(task_id="announce", skip_when="{{ not params.is_news }}", outlets=[NEWS])

with DAG("hear_news", schedule=[NEWS]):
    EmptyOperator(task_id="hear")
