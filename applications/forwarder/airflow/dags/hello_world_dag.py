"""The smallest useful DAG: one task that greets."""

from airflow.sdk import dag, task


@dag(dag_id="tutorial-hello-world", schedule=None, catchup=False, is_paused_upon_creation=False, tags=["tutorial"])
def hello_world_dag() -> None:
    """Greet once."""

    @task(task_id="hello_world")
    def hello_world() -> str:
        """Print the greeting; what is printed goes to the task's log, what is returned to its XCom."""
        greeting = "Hello, world"
        print(greeting)
        return greeting

    hello_world()


hello_world_dag()
