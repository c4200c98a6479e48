"""The public names, listed once: type checkers read this file, and `__init__.py` finds each name's module in it."""

from bge_export.build.recipe import Recipe as Recipe
from bge_export.build.recipe import read_recipe as read_recipe
from bge_export.checkpoint.opening import open_checkpoint as open_checkpoint
from bge_export.commands import Exported as Exported
from bge_export.commands import Proof as Proof
from bge_export.commands import bench_files as bench_files
from bge_export.commands import bisect_artifact as bisect_artifact
from bge_export.commands import check_parity as check_parity
from bge_export.commands import evaluate_pairs as evaluate_pairs
from bge_export.commands import export as export
from bge_export.commands import judge_report as judge_report
from bge_export.commands import merge_reports as merge_reports
from bge_export.commands import write_reference as write_reference
from bge_export.contracts import Artifact as Artifact
from bge_export.contracts import Checkpoint as Checkpoint
from bge_export.contracts import Promise as Promise
from bge_export.contracts import Reads as Reads
from bge_export.contracts import Target as Target
from bge_export.contracts import TokenBatch as TokenBatch
from bge_export.errors import BgeExportError as BgeExportError
from bge_export.inspection.doctor import examine_machine as examine_machine
from bge_export.inspection.folder import inspect_path as inspect_path
from bge_export.oracle.vectors import ReferenceVectors as ReferenceVectors
from bge_export.parity.gate.judge import Verdict as Verdict
from bge_export.parity.report import ParityReport as ParityReport
