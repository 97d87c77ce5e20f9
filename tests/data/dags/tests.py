"""DAGs of the tests: one that is over at once, and one that is not."""

import time

from airflow.sdk import dag, get_current_context, task


@dag(dag_id="quick", schedule=None)
def quick() -> None:
    @task(task_id="say")
    def say() -> None:
        print(get_current_context()["dag_run"].conf.get("word", "nothing"))

    say()


@dag(dag_id="slow", schedule=None)
def slow() -> None:
    @task(task_id="sleep")
    def sleep() -> None:
        time.sleep(300)

    sleep()


quick()
slow()
