"""Read by `jupyter lab`, once `make install` has put it into .venv: a notebook that is only looked at stays saved.

JupyterLab writes the name of the kernel and `language_info` into each notebook that it opens, and then shows it as
unsaved; `nbdev_clean` takes both out again. Here they are filled in on opening and left out on saving.
"""

from ipykernel.ipkernel import IPythonKernel
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager


class CleanNotebooks(AsyncLargeFileManager):
    "Notebooks as the running kernel describes them; files as `nbdev_clean` leaves them."

    async def get(self, path, content=True, *words, **options):
        "A file as JupyterLab shows it."
        model = await super().get(path, content, *words, **options)
        if content and model["type"] == "notebook":
            about = model["content"]["metadata"]
            spec = about.get("kernelspec", {})
            try:
                spec["display_name"] = KernelSpecManager().get_kernel_spec(spec["name"]).display_name
                about["language_info"] = dict(IPythonKernel.language_info)
            except (KeyError, NoSuchKernel):
                pass  # JupyterLab asks for a kernel
        return model

    async def save(self, model, path=""):
        "Write a file."
        if model.get("type") == "notebook" and model.get("content"):
            about = model["content"]["metadata"]
            about.pop("language_info", None)
            if "name" in about.get("kernelspec", {}):
                about["kernelspec"]["display_name"] = about["kernelspec"]["name"]
        return await super().save(model, path)


c.ServerApp.contents_manager_class = CleanNotebooks  # noqa: F821  (Jupyter gives `c`)
