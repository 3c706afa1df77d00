"""A pool of workers in this process, for tests of what is done with workers."""

from concurrent.futures import Future

from asecalc_mlip.stopping import at_work
from asecalc_mlip.workers import Lost, Pool


class Inline(Pool):
    """Does a task when it is given, but hands out results from the last to the first where it is asked to."""

    def __init__(self, folder, size=2, *, backwards=False, lost=()):
        super().__init__(folder / ".workers")
        self._size, self._backwards, self._lost = size, backwards, lost
        self.tasks, self._held = [], []

    def size(self):
        return self._size

    def submit(self, function, *arguments):
        job = Future()
        number = len(self.tasks)
        self.tasks.append(arguments)

        def work():
            try:
                if number in self._lost:
                    raise Lost("the process at work on it died")
                job.set_result(at_work(self.permit, function, arguments))
            except Exception as error:
                job.set_exception(error)

        self._held.append(work)
        if not self._backwards or len(self._held) == self._size:
            for held in reversed(self._held):
                held()
            self._held = []
        return job

    def close(self):
        pass
