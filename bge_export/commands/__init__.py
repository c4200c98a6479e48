"""The commands of the command line as Python functions: each composes stages and prints nothing.

export           recipe -> checkpoint -> layout + models + manifest, staged -> parity -> gate -> OUT, or OUT.refused
build_recipe     recipe -> each target, lane, score and card that is not made yet -> gate -> the Hub, if asked
build_fleet      recipes -> the same of each, one after the other
check_parity     folder x reference x texts x lanes -> report -> verdict
check_foreign    files of others x checkpoint x texts x lanes -> their reading, report, verdict
write_reference  checkpoint x texts -> vectors
judge_report     report -> verdict
folder_verdict   folder with a report -> its verdict in one line
merge_reports    reports of several machines -> one report -> verdict
bisect_artifact  model file x checkpoint x text -> the layer where it drifts
compare          artifact x another one, or vectors of an index x texts -> certificate with verdict
judge_certificate  certificate -> verdict
evaluate_pairs   folder x scored pairs -> task scores
evaluate_tasks   folder x tasks of mteb -> results in mteb's form -> scores beside the checkpoint's
sign_folder      folder that passes -> signed statement of its proof -> signature of all files
publish_folder   folder that passes -> one commit on the Hub, read back
verify           folder, or repository on the Hub -> verdict on signature, bytes and report, and what is made anew
check_program    folder with golden texts x a program in any language -> verdict on its vectors
bench_files      files x runtimes x shapes -> time, memory, size
"""

from bge_export.commands.analysis import bisect_artifact, evaluate_pairs
from bge_export.commands.bench import bench_files
from bge_export.commands.building.results import BuildOptions, Built
from bge_export.commands.building.run import build_fleet, build_recipe
from bge_export.commands.checking import check_parity
from bge_export.commands.comparing import CompareOptions, compare, judge_certificate
from bge_export.commands.exports import Exported, export
from bge_export.commands.foreign import check_foreign, is_foreign
from bge_export.commands.judging import Required
from bge_export.commands.measuring import Proof, read_policy
from bge_export.commands.programs import ProgramCheck, check_program
from bge_export.commands.published_files import PublishOptions
from bge_export.commands.publishing import Published, publish_folder
from bge_export.commands.reference import write_reference
from bge_export.commands.reports import folder_verdict, judge_report, merge_reports
from bge_export.commands.signing import SignedFolder, sign_folder
from bge_export.commands.tasks import TaskOptions, TaskScore, evaluate_tasks
from bge_export.commands.verifying import Verified, VerifyOptions, verify

__all__ = [
    "BuildOptions",
    "Built",
    "CompareOptions",
    "Exported",
    "ProgramCheck",
    "Proof",
    "PublishOptions",
    "Published",
    "Required",
    "SignedFolder",
    "TaskOptions",
    "TaskScore",
    "Verified",
    "VerifyOptions",
    "bench_files",
    "bisect_artifact",
    "build_fleet",
    "build_recipe",
    "check_foreign",
    "check_parity",
    "check_program",
    "compare",
    "evaluate_pairs",
    "evaluate_tasks",
    "export",
    "folder_verdict",
    "is_foreign",
    "judge_certificate",
    "judge_report",
    "merge_reports",
    "publish_folder",
    "read_policy",
    "sign_folder",
    "verify",
    "write_reference",
]
