// Heatmaps and state timelines, whose panels Grafana has not published: cells over time.

import { formattedValueToString, getValueFormat } from '@grafana/data';
import { UPlotChart, UPlotConfigBuilder, VizLegend } from '@grafana/ui';
import * as palettes from 'd3-scale-chromatic';

const LEGEND = 36;

// A chart without lines: time to the right, `labels` upwards, and what `draw` paints.
// A label stands at the foot of its row, or `inside` it.
function Cells({ theme, range, rows, labels, inside = 0, draw, width, height }) {
  const builder = new UPlotConfigBuilder('utc');
  const ends = [range.from, range.to];
  const across = { orientation: 0, direction: 1, range: () => ends };
  builder.addScale({ scaleKey: 'x', isTime: true, ...across });
  const up = { orientation: 1, direction: 1, range: () => [0, rows] };
  builder.addScale({ scaleKey: 'y', isTime: false, ...up });
  const axis = { theme, grid: { show: false }, ticks: { show: false } };
  const time = { isTime: true, timeZone: 'utc', placement: 'bottom' };
  builder.addAxis({ ...axis, ...time, scaleKey: 'x' });
  const splits = () => labels.map((_, row) => row + inside);
  builder.addAxis({ ...axis, scaleKey: 'y', placement: 'left', splits, values: () => labels });
  const nothing = { pathBuilder: () => null, showPoints: 'never' };
  builder.addSeries({ scaleKey: 'y', theme, ...nothing });
  builder.addHook('draw', ({ ctx, bbox, valToPos }) => {
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    draw(
      ctx,
      (at) => valToPos(at, 'x', true),
      (row) => valToPos(row, 'y', true),
    );
    ctx.restore();
  });
  return <UPlotChart config={builder} data={[ends, [0, 0]]} width={width} height={height} />;
}

export function Heatmap({ frames, panel, theme, range, width, height }) {
  const { color, filterValues, yAxis } = panel.options;
  const buckets = bucketsOf(frames);
  const most = Math.max(...buckets.flatMap(({ values }) => values));
  const shade = shades(color, theme);
  const format = getValueFormat(yAxis.unit);
  const names = buckets.slice(0, -1).map(({ le }) => formattedValueToString(format(le)));
  const step = frames[0].fields[0].config.interval;
  const draw = (ctx, across, up) => {
    buckets.forEach(({ times, values }, row) => {
      const top = up(row + 1) + 1;
      times.forEach((at, index) => {
        if (values[index] > filterValues.le) {
          const left = across(at - step);
          ctx.fillStyle = shade(values[index] / most);
          ctx.fillRect(left, top, across(at) - left - 1, up(row) - top);
        }
      });
    });
  };
  const line = { display: 'flex', alignItems: 'center', gap: 8, height: LEGEND, fontSize: 12 };
  const scale = [0, 0.25, 0.5, 0.75, 1].map(shade).join(', ');
  const bar = { width: 240, height: 8, background: `linear-gradient(90deg, ${scale})` };
  return (
    <>
      <Cells
        rows={buckets.length}
        labels={['', ...names]}
        height={height - LEGEND}
        {...{ theme, range, draw, width }}
      />
      <div style={line}>
        0 <span style={bar} /> {Number(most.toPrecision(3))}
      </div>
    </>
  );
}

// Returns buckets from the lowest on, each with what it has more than the one below it.
function bucketsOf(frames) {
  const found = frames.map(({ fields: [time, value] }) => ({
    le: Number(value.labels.le.replace('+Inf', 'Infinity')),
    times: time.values,
    values: value.values,
  }));
  found.sort((one, other) => one.le - other.le);
  return found.map(({ le, times, values }, row) => ({
    le,
    times,
    values: values.map((count, index) => count - (row ? found[row - 1].values[index] : 0)),
  }));
}

function shades({ scheme, exponent, steps, reverse }, { isDark }) {
  const shade = palettes[`interpolate${scheme}`];
  return (part) => {
    const level = Math.round(part ** exponent * (steps - 1)) / (steps - 1);
    // Little is pale on paper, and dark on a dark page.
    return shade(isDark === reverse ? level : 1 - level);
  };
}

export function Timeline({ frames, panel, theme, range, width, height }) {
  const { mappings, custom } = panel.fieldConfig.defaults;
  const names = frames.map((frame) => frame.fields[1].state.displayName).reverse();
  const draw = (ctx, across, up) => {
    ctx.font = `${12 * devicePixelRatio}px Inter`;
    ctx.textBaseline = 'middle';
    ctx.textAlign = 'left';
    frames.forEach((frame, index) => {
      const middle = up(frames.length - index - 0.5);
      const high = (up(0) - up(1)) * panel.options.rowHeight;
      for (const { from, to, value } of stretches(frame)) {
        const { text, color } = frame.fields[1].display(value);
        const left = Math.max(across(from), across(range.from));
        ctx.globalAlpha = custom.fillOpacity / 100;
        ctx.fillStyle = color;
        ctx.fillRect(left, middle - high / 2, across(to) - left, high);
        ctx.globalAlpha = 1;
        ctx.fillStyle = theme.colors.text.primary;
        if (across(to) - left > ctx.measureText(text).width + 8) {
          ctx.fillText(text, left + 4, middle);
        }
      }
    });
  };
  const words = Object.values(mappings[0].options).map(({ text, color }) => ({
    label: text,
    color: theme.visualization.getColorByName(color),
    yAxis: 1,
  }));
  return (
    <>
      <Cells
        rows={names.length}
        labels={names}
        inside={0.5}
        height={height - LEGEND}
        {...{ theme, range, draw, width }}
      />
      <VizLegend placement="bottom" displayMode="list" items={words} />
    </>
  );
}

// Returns points of one value that follow each other as one; a gap ends it.
function stretches({ fields: [time, value] }) {
  const step = time.config.interval;
  const found = [];
  time.values.forEach((at, index) => {
    const last = found.at(-1);
    if (last?.to === at && last.value === value.values[index]) {
      last.to = at + step;
    } else {
      found.push({ from: at, to: at + step, value: value.values[index] });
    }
  });
  return found;
}
