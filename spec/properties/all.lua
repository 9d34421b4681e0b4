-- What must hold of every op, as a list of {name =, applies =, check =}. Each property is tried on every case of every
-- op that it applies to; none knows an op by name, but in lists of exceptions, each with its reason.
for _, part in ipairs { "values", "derivatives", "layouts", "misuse", "bits" } do require("spec.properties." .. part) end

return require("spec.properties.frame").list
