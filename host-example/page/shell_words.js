// A line of a command, as words: quotes and backslashes as in a shell, and nothing else of one.

/** The words, or an error that says what is missing. */
export function shellWords(line) {
  const words = [];
  let word;
  let quote;
  for (let at = 0; at < line.length; at += 1) {
    const character = line[at];
    if (quote === "'") {
      if (character === "'") quote = undefined;
      else word += character;
    } else if (character === "\\") {
      at += 1;
      if (at >= line.length) throw new SyntaxError("there is nothing after the last backslash");
      // Within double quotes a backslash is one unless it protects what is special there.
      const kept = quote === '"' && !'"\\$`'.includes(line[at]) ? "\\" : "";
      word = (word ?? "") + kept + line[at];
    } else if (quote === '"') {
      if (character === '"') quote = undefined;
      else word += character;
    } else if (character === "'" || character === '"') {
      quote = character;
      word ??= "";
    } else if (/\s/.test(character)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else {
      word = (word ?? "") + character;
    }
  }
  if (quote) throw new SyntaxError(`a quote ${quote} is not closed`);
  if (word !== undefined) words.push(word);
  return words;
}

/** What only a shell understands, if the line has any of it outside of quotes. */
export function needsShell(line) {
  return /[|&;<>()$`*?~]/.test(line.replace(/'[^']*'|"[^"$`]*"|\\./g, ""));
}

/** The words as one line that reads back as the same. */
export function shellLine(words) {
  return words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)).join(" ");
}
