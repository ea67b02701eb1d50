# Turns scikit-learn's breast_cancer.csv into a CSV with column names and one row per patient.
# Its first line is "rows,columns,name of class 0,name of class 1"; measurements follow, the class comes last.
BEGIN {
    FS = OFS = ","
    split("mean error worst", statistic, " ")
    quantities = split("radius texture perimeter area smoothness compactness concavity " \
                       "concave_points symmetry fractal_dimension", quantity, " ")
}
NR == 1 {
    rows = $1; columns = $2; class[0] = $3; class[1] = $4
    header = "patient,group"
    for (s = 1; s <= 3; s++)
        for (q = 1; q <= quantities; q++)
            header = header "," statistic[s] "_" quantity[q]
    print header
    next
}
NF != columns + 1 { exit 1 }
{
    group = class[$NF + 0]
    sub(/,[^,]*$/, "")
    print ++seen, group, $0
}
END {
    # A short file would otherwise be a smaller study that nobody asked for.
    if (seen != rows) { print "read " seen + 0 " whole rows, the first line promises " rows > "/dev/stderr"; exit 1 }
}
