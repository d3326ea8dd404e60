// The kinds of panels that boards have: three are Grafana's parts, two are drawn here.

import { FieldType, getFieldDisplayValues } from '@grafana/data';
import { BigValue, TimeSeries } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';

import { Heatmap, Timeline } from './cells.jsx';

const KINDS = {
  timeseries: Lines,
  stat: Stat,
  table: Listing,
  heatmap: Heatmap,
  'state-timeline': Timeline,
};

export function Visualization(props) {
  const { type } = props.panel;
  const Kind = KINDS[type];
  const isEmpty = !props.frames.some(hasNumbers);
  if (Kind === undefined || (isEmpty && type !== 'stat')) {
    const text = Kind ? 'No data' : `no picture of a ${type}`;
    const style = { height: '100%', display: 'grid', placeItems: 'center' };
    return (
      <div data-problem={text} style={style}>
        {text}
      </div>
    );
  }
  return <Kind {...props} />;
}

const hasNumbers = ({ fields }) =>
  fields.some(({ type, values }) => type === FieldType.number && values.some(Number.isFinite));

function Lines({ frames, panel, theme, range, marks, width, height }) {
  return (
    <TimeSeries
      structureRev={1}
      timeRange={range}
      timeZone="utc"
      legend={panel.options.legend}
      options={panel.options}
      {...{ frames, width, height }}
    >
      {(config) => {
        config.addHook('draw', (u) => drawMarks(u, marks, theme));
        return null;
      }}
    </TimeSeries>
  );
}

// Annotations: a dashed line where one begins, and a bar below for as long as it lasts.
function drawMarks({ ctx, bbox, valToPos }, marks, theme) {
  const edge = bbox.left + bbox.width;
  const bottom = bbox.top + bbox.height;
  ctx.save();
  ctx.setLineDash([4, 4]);
  for (const { colour, from, to } of marks) {
    const [left, right] = [from, to].map((at) => valToPos(at, 'x', true));
    if (right >= bbox.left && left <= edge) {
      const begin = Math.max(left, bbox.left);
      ctx.strokeStyle = ctx.fillStyle = theme.visualization.getColorByName(colour);
      ctx.beginPath();
      ctx.moveTo(begin, bbox.top);
      ctx.lineTo(begin, bottom);
      ctx.stroke();
      ctx.fillRect(begin - 2, bottom + 3, Math.max(Math.min(right, edge) - begin, 4), 2);
    }
  }
  ctx.restore();
}

function Stat({ frames, panel, theme, width, height }) {
  const { colorMode, graphMode, justifyMode, reduceOptions } = panel.options;
  const [shown] = getFieldDisplayValues({
    fieldConfig: panel.fieldConfig,
    reduceOptions,
    replaceVariables: (text) => text,
    theme,
    data: frames,
  });
  const problem = frames.some(hasNumbers) ? undefined : 'No data';
  return (
    <div data-number={shown.display.text} data-problem={problem}>
      <BigValue
        value={shown.display}
        count={1}
        textMode="value"
        {...{ colorMode, graphMode, justifyMode, theme, width, height }}
      />
    </div>
  );
}

function Listing({ frames, panel, width, height }) {
  const { showHeader, showTypeIcons, cellHeight, sortBy } = panel.options;
  return (
    <TableNG
      data={frames[0]}
      noHeader={!showHeader}
      fieldConfig={panel.fieldConfig}
      structureRev={1}
      {...{ showTypeIcons, cellHeight, sortBy, width, height }}
    />
  );
}
