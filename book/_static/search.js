/* The order of search results: a chapter before the API reference, whose names otherwise come first. */
var Scorer = {
  score: ([docname, , , , score]) => (docname.includes("/api") || docname === "book/references" ? score - 100 : score),
  objNameMatch: 5,
  objPartialMatch: 2,
  objPrio: { 0: 3, 1: 1, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
