// Answers of Prometheus as Grafana's data frames, with the field options of the panel.

import {
  applyFieldOverrides,
  cacheFieldDisplayNames,
  createDataFrame,
  FieldType,
  Registry,
  standardTransformers,
  standardTransformersRegistry,
  transformDataFrame,
} from '@grafana/data';
import { firstValueFrom } from 'rxjs';

// What Grafana puts in where the JSON of a panel says nothing.
const GRAPH = {
  drawStyle: 'line',
  lineInterpolation: 'linear',
  showPoints: 'auto',
  pointSize: 5,
  stacking: { mode: 'none', group: 'A' },
  scaleDistribution: { type: 'linear' },
  thresholdsStyle: { mode: 'off' },
};
const TABLE = { align: 'auto', cellOptions: { type: 'auto' }, inspect: false };
const BY_LEVEL = { color: { mode: 'thresholds' } };
const DEFAULTS = {
  timeseries: { color: { mode: 'palette-classic' }, custom: GRAPH },
  table: { ...BY_LEVEL, custom: TABLE },
  stat: BY_LEVEL,
  heatmap: {},
  'state-timeline': BY_LEVEL,
};
const OPTIONS = [
  ...['unit', 'min', 'max', 'decimals', 'displayName', 'noValue', 'thresholds'],
  ...['mappings', 'links', 'color'],
];

standardTransformersRegistry.setInit(() =>
  [...new Set(Object.values(standardTransformers))].map((one) => ({
    id: one.id,
    name: one.name,
    transformation: () => Promise.resolve(one),
  })),
);

// Returns the frames of a panel, transformed, each field with its display.
export async function framesOf(panel, answer, theme) {
  if (answer === undefined) {
    return []; // of a row
  }
  const made = answer.queries.flatMap((query) =>
    panel.type === 'table' ? rows(query) : query.series.map((one) => line(one, query)),
  );
  const changed = transformDataFrame(panel.transformations ?? [], made);
  const frames = withOptions(panel, await firstValueFrom(changed), theme);
  cacheFieldDisplayNames(frames);
  return frames;
}

function line({ name, labels, times, values }, { refId, step }) {
  // Where a step has no value, the line has a gap.
  const time = { name: 'Time', type: FieldType.time, values: times, config: { interval: step } };
  const config = { displayNameFromDS: name };
  // Grafana draws no line to what is no number, as a quantile of nothing.
  const numbers = values.map((one) => (Number.isFinite(one) ? one : null));
  const value = { name: 'Value', type: FieldType.number, values: numbers, labels, config };
  return createDataFrame({ refId, fields: [time, value] });
}

function rows({ refId, series }) {
  const names = [...new Set(series.flatMap(({ labels }) => Object.keys(labels)))].sort();
  const column = (name, type, value) => ({ name, type, config: {}, values: series.map(value) });
  return createDataFrame({
    refId,
    fields: [
      column('Time', FieldType.time, ({ times }) => times[0]),
      ...names.map((name) => column(name, FieldType.string, ({ labels }) => labels[name])),
      column(`Value #${refId}`, FieldType.number, ({ values }) => values[0]),
    ],
  });
}

function withOptions({ type, fieldConfig: { defaults, overrides } }, data, theme) {
  const first = DEFAULTS[type];
  const custom = { ...first?.custom, ...defaults.custom };
  const properties = overrides.flatMap((one) => one.properties.map(({ id }) => id));
  const paths = properties.filter((id) => id.startsWith('custom.')).map((id) => id.slice(7));
  const customs = new Set([...Object.keys(custom), ...paths]);
  return applyFieldOverrides({
    data,
    fieldConfig: { defaults: structuredClone({ ...first, ...defaults, custom }), overrides },
    fieldConfigRegistry: new Registry(() => [
      ...OPTIONS.map((path) => option(path, path, false)),
      ...[...customs].map((path) => option(`custom.${path}`, path, true)),
    ]),
    replaceVariables: (text) => text,
    theme,
    timeZone: 'utc',
  });
}

function option(id, path, isCustom) {
  // The first threshold has no value in JSON, where it is minus infinity.
  const step = (one) => ({ ...one, value: one.value ?? -Infinity });
  const process = (value) =>
    path === 'thresholds' && value ? { ...value, steps: value.steps.map(step) } : value;
  return { id, path, isCustom, name: id, process, shouldApply: () => true };
}
