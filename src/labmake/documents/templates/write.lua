-- What typst and HTML need beyond pandoc's own writers: equation numbers, plain metadata, sources of figures.

local superscripts = {["⁻"] = "-", ["⁰"] = "0", ["¹"] = "1", ["²"] = "2", ["³"] = "3", ["⁴"] = "4", ["⁵"] = "5",
  ["⁶"] = "6", ["⁷"] = "7", ["⁸"] = "8", ["⁹"] = "9"}

-- Numbers that were filled in by `thousands` and `sci` are made for sentences; in a formula they are TeX.
local function number_in_formula(text)
  text = text:gsub("\u{202f}", "\\,"):gsub("\u{a0}", " "):gsub("×", "\\times "):gsub("−", "-")
  for sign, digit in pairs(superscripts) do text = text:gsub(sign, "\1" .. digit .. "\2") end
  return (text:gsub("\2\1", ""):gsub("\1", "^{"):gsub("\2", "}"))
end

-- pandoc writes \operatorname*{arg\,max}_x without its limits: its words are found again in the typst and made an operator.
local function with_limits(el, text)
  local operators = {}
  el.text = text:gsub("\\operatorname%*%s*(%b{})", function(words)
    operators[words:sub(2, -2):gsub("\\[,;: ]", "\u{2006}")] = true
    return "\\operatorname" .. words
  end)
  local formula = pandoc.write(pandoc.Pandoc {pandoc.Plain {el}}, "typst"):gsub("%s+$", "")
  for words in pairs(operators) do
    local quoted = '"' .. words .. '"'
    formula = formula:gsub(quoted:gsub("%p", "%%%0"), "op(" .. quoted .. ", limits: #true)")
  end
  return pandoc.RawInline("typst", formula)
end

local function math(el)
  local text = number_in_formula(el.text)
  if FORMAT:match "typst" then
    -- \bigl( … \bigr) would become glyphs of a fixed size at the wrong height; typst sizes \left and \right itself.
    local left, right, sized = 0, 0, text
    for _, size in ipairs {"big", "Big", "bigg", "Bigg"} do
      sized = sized:gsub("\\" .. size .. "l%f[%A]%s*", function() left = left + 1; return "\\left" end)
      sized = sized:gsub("\\" .. size .. "r%f[%A]%s*", function() right = right + 1; return "\\right" end)
    end
    if left > 0 and left == right then text = sized end
    -- pandoc makes a whole em backwards of \! instead of a sixth.
    text = text:gsub("\\\\", "\0"):gsub("\\!", ""):gsub("\0", "\\\\")
    if text:match "\\operatorname%*" then return with_limits(el, text) end
  end
  el.text = text
  return el
end

local function typst_string(text)
  return pandoc.RawInline("typst", '"' .. text:gsub('[\\"]', "\\%0"):gsub("%c", " ") .. '"')
end

local function plain(value)
  return pandoc.utils.stringify(value or "")
end

local function page_break(el)
  if el.format:match "tex" and el.text:match "^\\%a+page%s*$" then return pandoc.RawBlock("typst", "#pagebreak(weak: true)") end
end

-- A table of more than ROWS rows may be broken across pages; a shorter one would only look torn.
local ROWS = 30
local function table_block(el)
  local rows = 0
  for _, body in ipairs(el.bodies) do rows = rows + #body.body end
  if rows <= ROWS then return nil end
  return {pandoc.RawBlock("typst", "#long-tables.update(true)"), el, pandoc.RawBlock("typst", "#long-tables.update(false)")}
end

local typst = {
  RawBlock = page_break,
  Table = table_block,
  Math = math,
  Span = function(el)
    if el.classes:includes "label" then
      return {pandoc.RawInline("typst", "#caption-label["), pandoc.Span(el.content), pandoc.RawInline("typst", "]")}
    end
  end,
  Div = function(el)
    if not el.classes:includes "equation" then return nil end
    local formula = pandoc.write(pandoc.Pandoc(el.content), "typst"):gsub("%s+$", "")
    return pandoc.RawBlock("typst", ('#math.equation(block: true, numbering: _ => "(%s)", %s) <%s>')
      :format(el.attributes.number, formula, el.identifier))
  end,
}

local html = {
  Math = math,
  Figure = function(el)
    local source
    el:walk {Image = function(image) source = source or image.src end}
    if source and not source:match "^%a[%w+.-]+:" then
      source = source:gsub("%%20", " ")
      el.attributes.title = source
      el.attributes["data-source"] = source
      return el
    end
  end,
  Div = function(el)
    if not el.classes:includes "equation" then return nil end
    el.content:insert(pandoc.Plain {pandoc.Str("(" .. el.attributes.number .. ")")})
    el.attributes.number = nil
    return el
  end,
}

function Pandoc(doc)
  local meta = doc.meta
  local is_typst = FORMAT:match "typst"
  local text = is_typst and typst_string or pandoc.Str
  local title = plain(meta.title)
  meta["plain-title"] = pandoc.MetaInlines {text(title ~= "" and title or plain(meta["title-fallback"]))}
  local names = {}
  for i, author in ipairs(meta.author or {}) do
    names[i] = pandoc.MetaInlines {text(plain(author.name))}
  end
  meta["plain-author"] = #names > 0 and names or nil
  local year, month, day = plain(meta.date):match "^(%d%d%d%d)%-(%d%d?)%-(%d%d?)$"
  if is_typst and year then
    meta["plain-date"] = pandoc.MetaInlines {pandoc.RawInline("typst", ("year: %d, month: %d, day: %d"):format(year, month, day))}
  end
  return doc:walk(is_typst and typst or html)
end
