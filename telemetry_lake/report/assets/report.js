"use strict";
// Draws the charts that stand as data in the page; the colours are those of the style sheet, light or dark.

const COLOURS = 6;
// Up to here each value of a line gets a dot, so that one alone can be seen.
const DOTS = 60;

function style(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function inUnit(value, unit) {
  if (unit === "bytes") {
    let size = value;
    for (const name of ["B", "KB", "MB", "GB"]) {
      if (size < 1000) return `${Number(size.toPrecision(3))} ${name}`;
      size /= 1000;
    }
    return `${Number(size.toPrecision(3))} TB`;
  }
  const text = value.toLocaleString("en", { maximumFractionDigits: 3 });
  return unit === "seconds" ? `${text} s` : text;
}

function valueAxis(unit, position) {
  return {
    type: "value",
    position,
    min: (range) => Math.min(0, range.min),
    minInterval: unit === "count" ? 1 : undefined,
    axisLabel: {
      color: style("--faint"),
      hideOverlap: true,
      formatter: (value) =>
        unit === "count" && Math.abs(value) >= 10000
          ? value.toLocaleString("en", { notation: "compact" })
          : inUnit(value, unit),
    },
    splitLine: { lineStyle: { color: style("--rule") }, show: position !== "right" },
  };
}

function common(chart) {
  return {
    animation: false,
    useUTC: true,
    color: Array.from({ length: COLOURS }, (_, index) => style(`--series-${index + 1}`)),
    textStyle: { color: style("--ink"), fontFamily: "system-ui, sans-serif" },
    legend:
      chart.series.length > 1
        ? { type: "scroll", top: 0, left: 0, icon: "roundRect", itemWidth: 14, textStyle: { color: style("--ink") }, pageIconColor: style("--ink"), pageTextStyle: { color: style("--faint") } }
        : { show: false },
    tooltip: {
      trigger: "axis",
      confine: true,
      backgroundColor: style("--paper"),
      borderColor: style("--rule"),
      textStyle: { color: style("--ink"), fontSize: 13 },
      axisPointer: { type: chart.kind === "bars" ? "shadow" : "line" },
      valueFormatter: (value) => (value === undefined || value === null ? "none" : inUnit(value, chart.unit)),
    },
    grid: { left: 4, right: 12, top: chart.series.length > 1 ? 36 : 12, bottom: 4, containLabel: true },
  };
}

function overTime(chart) {
  const hasRightAxis = chart.series.some((line) => line.right);
  return {
    ...common(chart),
    xAxis: {
      type: "time",
      min: chart.start,
      max: chart.end,
      axisLabel: { color: style("--faint"), hideOverlap: true },
      axisLine: { lineStyle: { color: style("--rule") } },
    },
    yAxis: [valueAxis(chart.unit, "left"), ...(hasRightAxis ? [valueAxis(chart.unit, "right")] : [])],
    series: chart.series.map((line) => ({
      type: "line",
      name: line.name,
      data: line.values,
      yAxisIndex: line.right ? 1 : 0,
      showSymbol: line.values.length <= DOTS,
      symbol: "circle",
      symbolSize: 7,
      lineStyle: { width: 2 },
    })),
  };
}

function bars(chart) {
  const categories = {
    type: "category",
    data: chart.categories,
    inverse: chart.horizontal,
    axisTick: { show: false },
    axisLine: { lineStyle: { color: style("--rule") } },
    axisLabel: { color: style("--faint"), hideOverlap: true, interval: chart.horizontal ? 0 : "auto" },
  };
  const values = valueAxis(chart.unit, chart.horizontal ? "bottom" : "left");
  return {
    ...common(chart),
    xAxis: chart.horizontal ? values : categories,
    yAxis: chart.horizontal ? categories : values,
    series: chart.series.map((each) => ({ type: "bar", name: each.name, data: each.values, stack: "all", barMaxWidth: 36 })),
  };
}

const charts = JSON.parse(document.getElementById("charts").textContent);
const drawn = Array.from(document.querySelectorAll("[data-chart]"), (element) => ({
  chart: charts[Number(element.dataset.chart)],
  canvas: echarts.init(element, null, { renderer: "svg" }),
}));

function draw() {
  for (const { chart, canvas } of drawn) canvas.setOption(chart.kind === "time" ? overTime(chart) : bars(chart), true);
}

draw();
window.addEventListener("resize", () => drawn.forEach(({ canvas }) => canvas.resize()));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
