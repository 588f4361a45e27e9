"""Frozen typed specs of a request. Types live here, values in ``conf/``.

`parse` is the one way from a plain dictionary (a composed Hydra config, a saved ``spec.yaml``, keywords from a
notebook) to a spec; it raises a `RequestError` that names the key, the bad value and what would be right. All other
code reads specs only.
"""

from harness.config.ablation import AblationSpec as AblationSpec
from harness.config.ablation import MeanAblation as MeanAblation
from harness.config.ablation import PatchAblation as PatchAblation
from harness.config.ablation import Positions as Positions
from harness.config.ablation import ResampleAblation as ResampleAblation
from harness.config.ablation import ScaleAblation as ScaleAblation
from harness.config.ablation import ZeroAblation as ZeroAblation
from harness.config.attribution import AttributionSpec as AttributionSpec
from harness.config.attribution import RolloutSpec as RolloutSpec
from harness.config.errors import DISK_ERRORS as DISK_ERRORS
from harness.config.errors import RequestError as RequestError
from harness.config.errors import is_a_text as is_a_text
from harness.config.errors import near as near
from harness.config.errors import quoted as quoted
from harness.config.execute import ExecuteSpec as ExecuteSpec
from harness.config.execute import LocalExecute as LocalExecute
from harness.config.execute import RayExecute as RayExecute
from harness.config.models import GgufModel as GgufModel
from harness.config.models import HubModel as HubModel
from harness.config.models import MemoryModel as MemoryModel
from harness.config.models import ModelBase as ModelBase
from harness.config.models import ModelSpec as ModelSpec
from harness.config.models import PathModel as PathModel
from harness.config.models import PlantedModel as PlantedModel
from harness.config.models import RandomModel as RandomModel
from harness.config.models import WheelModel as WheelModel
from harness.config.parsing import RENAMED as RENAMED
from harness.config.parsing import check_names as check_names
from harness.config.parsing import conf_dir as conf_dir
from harness.config.parsing import model_names as model_names
from harness.config.parsing import named_model as named_model
from harness.config.parsing import parse as parse
from harness.config.prompts import Context as Context
from harness.config.prompts import ContextPrompts as ContextPrompts
from harness.config.prompts import FilePrompts as FilePrompts
from harness.config.prompts import InductionPrompts as InductionPrompts
from harness.config.prompts import InlinePrompts as InlinePrompts
from harness.config.prompts import IoiPrompts as IoiPrompts
from harness.config.prompts import PromptSpec as PromptSpec
from harness.config.prompts import ProsePrompts as ProsePrompts
from harness.config.prompts import TokenIdPrompts as TokenIdPrompts
from harness.config.published import Published as Published
from harness.config.run import NOT_IN_HASH as NOT_IN_HASH
from harness.config.run import BenchmarkSpec as BenchmarkSpec
from harness.config.run import CacheSpec as CacheSpec
from harness.config.run import CompareSpec as CompareSpec
from harness.config.run import ListSpec as ListSpec
from harness.config.run import LookSpec as LookSpec
from harness.config.run import Place as Place
from harness.config.run import RenderSpec as RenderSpec
from harness.config.run import ReproduceSpec as ReproduceSpec
from harness.config.run import RolesSpec as RolesSpec
from harness.config.run import RunSpec as RunSpec
from harness.config.run import ShowSpec as ShowSpec
from harness.config.run import StatsSpec as StatsSpec
from harness.config.run import SweepSpec as SweepSpec
from harness.config.run import check_there as check_there
from harness.config.run import settings_hash as settings_hash
from harness.config.run import spec_hash as spec_hash
from harness.config.trace import TraceSpec as TraceSpec
from harness.config.types import Bos as Bos
from harness.config.types import Count as Count
from harness.config.types import Fraction as Fraction
from harness.config.types import Heads as Heads
from harness.config.types import Names as Names
from harness.config.types import OpenFraction as OpenFraction
from harness.config.types import PathText as PathText
from harness.config.types import PositiveInt as PositiveInt
from harness.config.types import Seed as Seed
from harness.config.types import Text as Text
from harness.config.types import spec as spec
