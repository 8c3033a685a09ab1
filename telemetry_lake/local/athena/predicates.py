"""Which conditions of a query restrict what a table has to deliver: the base of partition pruning.

Conditions travel as Trino's optimizer moves them: from the outside into subqueries, views and CTEs, through GROUP BY
where they concern the keys, through windows where they concern the partition keys of every window. A condition that
is not certain to travel is left where it is: too many files are read then, never too few.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

from sqlglot import exp
from sqlglot.optimizer.scope import Scope, build_scope

# Evaluates a condition without columns: True, False or None (unknown).
Evaluate = Callable[[exp.Expr], Any]

_NOT_PUSHED = (exp.Query, exp.AggFunc, exp.Window, exp.Unnest, exp.Rand, exp.Uuid, exp.Placeholder)


@dataclass
class ScanPredicates:
    """The conditions on one table of the query, over its plain column names; all of them hold for every useful row."""

    conditions: list[exp.Expr] = field(default_factory=list)


def conjuncts(condition: exp.Expr | None) -> list[exp.Expr]:
    """Return the parts of a condition that are joined by AND."""
    if condition is None:
        return []
    condition = condition.unnest()
    if isinstance(condition, exp.And):
        return conjuncts(condition.left) + conjuncts(condition.right)
    return [condition]


def weaken(condition: exp.Expr, columns: Iterable[str]) -> exp.Expr | None:
    """Return what a condition says about ``columns`` alone: implied by it, or None when it says nothing.

    ``(year = 2025 AND t > 3) OR year = 2024`` weakened to ``year`` is ``year = 2025 OR year = 2024``.
    """
    allowed = frozenset(columns)
    condition = condition.unnest()
    if isinstance(condition, exp.And):
        parts = [part for side in (condition.left, condition.right) if (part := weaken(side, allowed)) is not None]
        return exp.and_(*parts, copy=False) if parts else None
    if isinstance(condition, exp.Or):
        left, right = weaken(condition.left, allowed), weaken(condition.right, allowed)
        return None if left is None or right is None else exp.or_(left, right, copy=False)
    if condition.find(*_NOT_PUSHED) is not None:
        return None
    if all(column.name in allowed for column in condition.find_all(exp.Column)):
        return condition.copy()
    return None


def scan_predicates(tree: exp.Expr, scans: Iterable[str], evaluate: Evaluate) -> dict[str, ScanPredicates]:
    """Return the conditions that hold for each scan.

    Args:
        tree: a qualified query, in which every table reference has a name of its own.
        scans: those names.
        evaluate: evaluates a condition without columns; used to see whether a condition rejects NULL, without which
            it must not restrict the side of an outer join that may be filled up with NULLs.
    """
    collected = {name: ScanPredicates() for name in scans}
    root = build_scope(tree)
    if root is not None:
        _Walk(collected, evaluate, root.ref_count()).visit(root, [])
    return collected


def _unqualified(condition: exp.Expr) -> exp.Expr:
    def strip(node: exp.Expr) -> exp.Expr:
        return exp.column(node.this.copy()) if isinstance(node, exp.Column) else node

    return condition.copy().transform(strip)


class _Walk:
    def __init__(
        self, collected: dict[str, ScanPredicates], evaluate: Evaluate, reference_counts: dict[int, int]
    ) -> None:
        self._collected = collected
        self._evaluate = evaluate
        self._reference_counts = reference_counts

    def visit(self, scope: Scope, incoming: list[exp.Expr]) -> None:
        expression = scope.expression
        if isinstance(expression, exp.SetOperation):
            self._visit_set_operation(scope, expression, incoming)
        elif isinstance(expression, exp.Select):
            self._visit_select(scope, expression, incoming)
        for subquery in scope.subquery_scopes:
            self.visit(subquery, [])

    def _visit_set_operation(self, scope: Scope, expression: exp.SetOperation, incoming: list[exp.Expr]) -> None:
        if expression.args.get("limit") or expression.args.get("offset") or expression.args.get("with_"):
            incoming = []
        names = expression.named_selects
        for branch in scope.set_operation_scopes:
            renamed = dict(zip(names, cast("exp.Query", branch.expression).named_selects, strict=False))
            self.visit(
                branch,
                [
                    _substitute(condition, {old: exp.column(exp.to_identifier(new)) for old, new in renamed.items()})
                    for condition in incoming
                ],
            )

    def _visit_select(self, scope: Scope, select: exp.Select, incoming: list[exp.Expr]) -> None:
        where = select.args.get("where")
        pushed = conjuncts(where.this if where else None) + [
            mapped for condition in incoming if (mapped := _through_projection(select, condition)) is not None
        ]
        sources = scope.selected_sources
        nullable = _null_supplying(select, sources)
        per_source: dict[str, list[exp.Expr]] = {name: [] for name in sources}
        for condition in pushed:
            source = _only_source(condition, per_source)
            if source is not None and (source not in nullable or self._rejects_null(condition)):
                per_source[source].append(condition)
        self._add_join_conditions(select, per_source, nullable)
        for name, conditions in per_source.items():
            node, origin = sources[name]
            if isinstance(origin, Scope):
                once = self._reference_counts.get(id(origin), 2) == 1 and not _is_recursive(origin)
                self.visit(origin, [_unqualified(condition) for condition in conditions] if once else [])
            elif isinstance(node, exp.Table) and node.name in self._collected:
                self._collected[node.name].conditions.extend(_unqualified(condition) for condition in conditions)

    def _add_join_conditions(
        self, select: exp.Select, per_source: dict[str, list[exp.Expr]], nullable: set[str]
    ) -> None:
        for join in select.args.get("joins") or []:
            side = (join.side or "").upper()
            right = join.alias_or_name
            for condition in conjuncts(join.args.get("on")):
                source = _only_source(condition, per_source)
                if source is None:
                    continue
                inner = side == "" and (source not in nullable or self._rejects_null(condition))
                if inner or (side == "LEFT" and source == right):
                    per_source[source].append(condition)

    def _rejects_null(self, condition: exp.Expr) -> bool:
        def to_null(node: exp.Expr) -> exp.Expr:
            return exp.null() if isinstance(node, exp.Column) else node

        return self._evaluate(condition.copy().transform(to_null)) in (None, False)


def _is_recursive(scope: Scope) -> bool:
    return isinstance(scope.expression, exp.SetOperation) and bool(scope.cte_sources) and scope.is_cte


def _only_source(condition: exp.Expr, sources: dict[str, Any]) -> str | None:
    if condition.find(*_NOT_PUSHED) is not None:
        return None
    names = {column.table for column in condition.find_all(exp.Column)}
    if len(names) != 1:
        return None
    name = names.pop()
    return name if name in sources else None


def _null_supplying(select: exp.Select, sources: dict[str, Any]) -> set[str]:
    """Return the sources whose rows an outer join may replace by NULLs."""
    joins = select.args.get("joins") or []
    joined = {join.alias_or_name for join in joins}
    before = [name for name in sources if name not in joined]
    nullable: set[str] = set()
    for join in joins:
        side = (join.side or "").upper()
        if side in ("LEFT", "FULL"):
            nullable.add(join.alias_or_name)
        if side in ("RIGHT", "FULL"):
            nullable.update(before)
        before.append(join.alias_or_name)
    return nullable


def _substitute(condition: exp.Expr, replacements: dict[str, exp.Expr]) -> exp.Expr:
    def replace(node: exp.Expr) -> exp.Expr:
        return replacements[node.name].copy() if isinstance(node, exp.Column) and node.name in replacements else node

    return condition.copy().transform(replace)


def _through_projection(select: exp.Select, condition: exp.Expr) -> exp.Expr | None:
    """Rewrite a condition on a query's output to one on its input, or return None when that changes the result."""
    if select.args.get("limit") or select.args.get("offset"):
        return None
    group = select.args.get("group")
    if group is not None and any(group.args.get(kind) for kind in ("grouping_sets", "cube", "rollup")):
        return None
    outputs = {projection.alias_or_name: projection.unalias() for projection in select.selects}
    replacements = {}
    aggregates = group is not None or any(item.find(exp.AggFunc) for item in select.selects if not _has_window(item))
    for column in condition.find_all(exp.Column):
        output = outputs.get(column.name)
        if output is None or output.find(*_NOT_PUSHED) is not None:
            return None
        if aggregates and (group is None or output not in group.expressions):
            return None
        if not all(output in window.args.get("partition_by", []) for window in _windows(select)):
            return None
        replacements[column.name] = output
    return _substitute(condition, replacements)


def _has_window(item: exp.Expr) -> bool:
    return item.find(exp.Window) is not None


def _windows(select: exp.Select) -> list[exp.Window]:
    return [window for item in select.selects for window in item.find_all(exp.Window)]
