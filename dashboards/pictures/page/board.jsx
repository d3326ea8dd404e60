// The page of one board: what was chosen at its top, then its panels on the grid.

import '@fontsource/inter/400.css';
import '@fontsource/inter/500.css';
import '@fontsource/inter/600.css';
import { createTheme, ThemeContext } from '@grafana/data';
import { GlobalStyles, Icon, PanelChrome } from '@grafana/ui';
import { flushSync } from 'react-dom';
import { createRoot } from 'react-dom/client';

import { framesOf } from './frames.js';
import { Visualization } from './panels.jsx';

// Of Grafana's grid, in pixels.
const CELL = 30;
const GAP = 8;
const COLUMNS = 24;
const EDGE = 16;

const LINE = { display: 'flex', gap: 8, alignItems: 'center', margin: '8px 0' };

function Top({ theme, board, choices, span }) {
  const { borderColor, background } = theme.components.input;
  const box = { border: `1px solid ${borderColor}`, background, padding: '4px 8px' };
  const pale = { color: theme.colors.text.secondary };
  return (
    <header style={{ padding: `4px ${EDGE}px` }}>
      <div style={LINE}>
        <h1 style={{ fontSize: 18, margin: 0 }}>{board.title}</h1>
        <span style={pale}>rendered without Grafana</span>
        <span style={{ ...pale, marginLeft: 'auto' }}>{span}</span>
      </div>
      <div style={LINE}>
        {choices.map(({ name, value }) => (
          <span key={name} style={box}>
            <small style={{ ...pale, marginRight: 8 }}>{name}</small>
            {value} <Icon name="angle-down" />
          </span>
        ))}
      </div>
    </header>
  );
}

function Panel({ panel, ...rest }) {
  const { x, y, w, h } = panel.gridPos;
  const page = document.documentElement.clientWidth;
  const column = (page - 2 * EDGE - (COLUMNS - 1) * GAP) / COLUMNS;
  const width = Math.round(w * (column + GAP) - GAP);
  const height = h * (CELL + GAP) - GAP;
  const left = Math.round(EDGE + x * (column + GAP));
  const style = { position: 'absolute', left, top: y * (CELL + GAP), width, height };
  const { title, description, type } = panel;
  const padding = ['stat', 'table'].includes(type) ? 'none' : 'md';
  return (
    <section style={style} data-panel={title} data-kind={type}>
      {type === 'row' ? (
        <h2 style={{ lineHeight: '30px', fontSize: 16 }}>
          <Icon name="angle-down" /> {title}
        </h2>
      ) : (
        <PanelChrome {...{ title, description, width, height, padding }}>
          {(wide, high) => <Visualization panel={panel} width={wide} height={high} {...rest} />}
        </PanelChrome>
      )}
    </section>
  );
}

// Shows a board, with the answers of Prometheus by panel.
window.show = async ({ board, answers, range, marks, choices, scheme, span }) => {
  const theme = createTheme({ colors: { mode: scheme } });
  const bottom = Math.max(...board.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  const panels = await Promise.all(
    board.panels.map(async (panel) => {
      const frames = await framesOf(panel, answers[panel.id], theme);
      return <Panel key={panel.id} {...{ panel, frames, theme, range, marks }} />;
    }),
  );
  await document.fonts.ready;
  const root = createRoot(document.getElementById('board'));
  const page = (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <Top theme={theme} board={board} choices={choices} span={span} />
      <main style={{ position: 'relative', height: bottom * (CELL + GAP) + GAP }}>
        {panels}
      </main>
    </ThemeContext.Provider>
  );
  flushSync(() => root.render(page));
};

const shownPanels = () => [...document.querySelectorAll('[data-panel]')];

// Titles of panels on which there is nothing to see yet, or no icon.
window.blank = () =>
  shownPanels()
    .filter((panel) => !(panel.querySelector('svg') && hasContent(panel)))
    .map((panel) => panel.dataset.panel);

function hasContent(panel) {
  const { kind } = panel.dataset;
  const text = kind === 'table' ? '[role=gridcell]' : '[data-number]';
  return (
    kind === 'row' ||
    panel.querySelector(`[data-problem], ${text}`) ||
    [...panel.querySelectorAll('canvas')].some(isPainted)
  );
}

function isPainted(canvas) {
  const { width, height } = canvas;
  const pixels = canvas.getContext('2d').getImageData(0, 0, width, height).data;
  return pixels.some((value) => value !== 0);
}

// What panels say instead of showing data.
window.problems = () =>
  shownPanels().flatMap((panel) =>
    [...panel.querySelectorAll('[data-problem]')].map(
      (one) => `${panel.dataset.panel}: ${one.dataset.problem}`,
    ),
  );
