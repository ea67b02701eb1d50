-- Numbers what can be referred to and resolves @fig:x, @tbl:x, @eq:x and @sec:x, before citeproc sees them as citations.
--
-- All numbering happens here, once: typst and HTML only print it, so the two formats cannot disagree.
-- What cannot be resolved ends pandoc with a line "labmake: <kind> <label> <labels that exist>", which pandoc.py explains.

local words = {
  en = {fig = "Figure", tbl = "Table", eq = "Equation", sec = "Section", abstract = "Abstract", references = "References"},
  de = {fig = "Abbildung", tbl = "Tabelle", eq = "Gleichung", sec = "Abschnitt", abstract = "Zusammenfassung", references = "Literatur"},
  fr = {fig = "Figure", tbl = "Tableau", eq = "Équation", sec = "Section", abstract = "Résumé", references = "Références"},
  es = {fig = "Figura", tbl = "Tabla", eq = "Ecuación", sec = "Sección", abstract = "Resumen", references = "Referencias"},
  it = {fig = "Figura", tbl = "Tabella", eq = "Equazione", sec = "Sezione", abstract = "Sommario", references = "Bibliografia"},
  nl = {fig = "Figuur", tbl = "Tabel", eq = "Vergelijking", sec = "Paragraaf", abstract = "Samenvatting", references = "Literatuur"},
  pt = {fig = "Figura", tbl = "Tabela", eq = "Equação", sec = "Seção", abstract = "Resumo", references = "Referências"},
}
local word = words.en
local number = {}                    -- label -> the number as text
local count = {fig = 0, tbl = 0, eq = 0}
local sections = {0, 0, 0, 0, 0, 0}
local number_sections = true
local nbsp = "\u{a0}"

local function fail(kind, label)
  local known = {}
  for id in pairs(number) do known[#known + 1] = id end
  table.sort(known)
  error("labmake: " .. kind .. " " .. label .. " " .. table.concat(known, " "), 0)
end

local function assign(id, text)
  if id == "" then return end
  if number[id] then fail("twice", id) end
  number[id] = text
end

local function take(kind, id)
  count[kind] = count[kind] + 1
  assign(id, tostring(count[kind]))
  return tostring(count[kind])
end

-- Figures and tables are numbered if they have a caption; the caption begins with the number.
local function caption(kind, el)
  local first = el.caption.long[1]
  if not first or not first.content then return nil end
  local label = pandoc.Span({pandoc.Str(word[kind] .. nbsp .. take(kind, el.identifier))}, {class = "label"})
  first.content:insert(1, pandoc.Space())
  first.content:insert(1, label)
  return el
end

local function figure(el)
  return caption("fig", el)
end

-- A pipe table with one long line gets widths from the dashes below its header; its contents know better.
local function tables(el)
  local total = 0
  for _, spec in ipairs(el.colspecs) do total = total + (tonumber(spec[2]) or 0) end
  if total > 0.999 then
    for i, spec in ipairs(el.colspecs) do el.colspecs[i] = {spec[1], nil} end
  end
  return caption("tbl", el) or el
end

-- $$…$$ {#eq:x} becomes a block of its own, also in the middle of a paragraph.
local function equations(el)
  local blocks, rest, i = pandoc.Blocks {}, pandoc.Inlines {}, 1
  local function flush()
    while #rest > 0 and (rest[#rest].t == "SoftBreak" or rest[#rest].t == "Space") do rest:remove(#rest) end
    if #rest > 0 then blocks:insert(el.t == "Para" and pandoc.Para(rest) or pandoc.Plain(rest)) end
    rest = pandoc.Inlines {}
  end
  local inlines = el.content
  while i <= #inlines do
    local math, label, used = inlines[i], nil, 0
    if math.t == "Math" and math.mathtype == "DisplayMath" then
      for ahead = 1, 2 do
        local next = inlines[i + ahead]
        if not label and next and next.t == "Str" then
          label = next.text:match "^{#(eq:[%w_.:-]+)}$"
          used = ahead
        elseif not (next and (next.t == "Space" or next.t == "SoftBreak")) then
          break
        end
      end
    end
    if label then
      flush()
      blocks:insert(pandoc.Div({pandoc.Para {math}}, pandoc.Attr(label, {"equation"}, {number = take("eq", label)})))
      i = i + used + 1
      while inlines[i] and (inlines[i].t == "SoftBreak" or inlines[i].t == "Space") do i = i + 1 end
    else
      rest:insert(math)
      i = i + 1
    end
  end
  if #blocks == 0 then return nil end
  flush()
  return blocks
end

local function header(el)
  if not number_sections or el.classes:includes "unnumbered" then
    if el.identifier:match "^sec:" then number[el.identifier] = "“" .. pandoc.utils.stringify(el.content) .. "”" end
    return nil
  end
  sections[el.level] = sections[el.level] + 1
  for level = el.level + 1, 6 do sections[level] = 0 end
  if el.identifier:match "^sec:" then
    assign(el.identifier, table.concat({table.unpack(sections, 1, el.level)}, "."))
  end
end

local function is_ours(citation)
  local kind = citation.id:match "^(%a+):"
  return kind and (count[kind] or kind == "sec") and kind
end

-- [see @fig:a; @fig:b] -> (see Figure 1, Figure 2); @fig:a -> Figure 1
local function cite(el)
  local out, others = pandoc.Inlines {}, pandoc.List {}
  for _, one in ipairs(el.citations) do
    local kind = is_ours(one)
    if kind then
      if not number[one.id] then fail("unknown", one.id) end
      if #out > 0 then out:extend {pandoc.Str ",", pandoc.Space()} end
      if #one.prefix > 0 then out:extend(one.prefix); out:insert(pandoc.Space()) end
      out:insert(pandoc.Link(word[kind] .. nbsp .. number[one.id], "#" .. one.id))
      out:extend(one.suffix)
    else
      others:insert(one)
    end
  end
  if #out == 0 then return nil end
  local bare = el.citations[1].mode == "AuthorInText"
  if #others > 0 then
    -- "@fig:a [@smith2020]" is one citation to pandoc, a figure and its authority to its writer.
    if not (bare and #others == #el.citations - 1 and is_ours(el.citations[1])) then fail("mixed", el.citations[1].id) end
    out:extend {pandoc.Space(), pandoc.Cite({pandoc.Str "[…]"}, others)}
  elseif not bare then
    out:insert(1, pandoc.Str "(")
    out:insert(pandoc.Str ")")
  end
  return out
end

-- An image written in HTML is an image in the PDF too; comments are for the authors.
local function raw(el)
  if el.format ~= "html" then return nil end
  if el.text:match "^%s*<!%-%-" then return {} end
  if not el.text:match "^%s*<[iI][mM][gG]%s" then return nil end
  local blocks = pandoc.read(el.text, "html").blocks
  return el.t == "RawBlock" and blocks or pandoc.utils.blocks_to_inlines(blocks)
end

-- Authors may be a text, a list of texts, or a list of {name, affiliation}: afterwards they are the last.
local function authors(meta)
  if not meta.author then return end
  local given = pandoc.utils.type(meta.author) == "List" and meta.author or {meta.author}
  local all = {}
  for i, one in ipairs(given) do
    all[i] = (pandoc.utils.type(one) == "table") and one or {name = one}
  end
  meta.author = all
end

function Pandoc(doc)
  local meta = doc.meta
  local lang = meta.lang and pandoc.utils.stringify(meta.lang) or "en"
  word = words[lang:match "^%a+"] or words.en
  number_sections = not (meta.numbersections ~= nil and pandoc.utils.stringify(meta.numbersections) == "false")
  authors(meta)
  meta["abstract-title"] = meta["abstract-title"] or word.abstract
  if meta["link-citations"] == nil then meta["link-citations"] = true end
  local last = doc.blocks[#doc.blocks]
  if meta["reference-section-title"] == nil and last and last.t ~= "Header" then
    meta["reference-section-title"] = word.references
  end
  doc = doc:walk {RawBlock = raw, RawInline = raw}
  -- An image that was alone in its paragraph in HTML stays there: only Markdown's own become figures.
  doc = doc:walk {traverse = "topdown", Para = equations, Plain = equations, Figure = figure, Table = tables, Header = header}
  return doc:walk {Cite = cite}
end
