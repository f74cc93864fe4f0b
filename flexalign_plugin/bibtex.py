r"""
@article{strelak2020flexalign,
  title   = {FlexAlign: An Accurate and Fast Algorithm for Movie Alignment in Cryo-Electron Microscopy},
  author  = {St{\v{r}}el{\'a}k, David and Filipovi{\v{c}}, Ji{\v{r}}{\'\i} and Jim{\'e}nez-Moreno, Amaya and
             Carazo, Jos{\'e} Mar{\'\i}a and Sorzano, Carlos {\'O}scar S{\'a}nchez},
  journal = {Electronics},
  volume  = {9},
  number  = {6},
  pages   = {1040},
  year    = {2020},
  doi     = {10.3390/electronics9061040},
  url     = {https://doi.org/10.3390/electronics9061040}
}

@article{grant2015,
  title   = {Measuring the optimal exposure for single particle cryo-{EM} using a 2.6 {\AA} reconstruction of
             rotavirus {VP6}},
  author  = {Grant, Timothy and Grigorieff, Nikolaus},
  journal = {eLife},
  volume  = {4},
  pages   = {e06980},
  year    = {2015},
  doi     = {10.7554/eLife.06980},
  url     = {https://doi.org/10.7554/eLife.06980}
}
"""
