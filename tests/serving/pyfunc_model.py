"""The smallest MLflow model "from code": serving reads its artifacts and never calls it."""

from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel


class EchoModel(PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input


set_model(EchoModel())
