#ifndef NNET_PAIR_SUM_H_
#define NNET_PAIR_SUM_H_

namespace nnet {

// res[i][j] = first[i] + second[j], channels last: adders and wires.
template <class first_T, class second_T, class res_T, typename CONFIG_T>
void pair_sum(first_T first[CONFIG_T::n_rows * CONFIG_T::n_chan], second_T second[CONFIG_T::n_rows * CONFIG_T::n_chan],
              res_T res[CONFIG_T::n_rows * CONFIG_T::n_rows * CONFIG_T::n_chan]) {
    #pragma HLS PIPELINE

    for (unsigned i = 0; i < CONFIG_T::n_rows; i++) {
        for (unsigned j = 0; j < CONFIG_T::n_rows; j++) {
            for (unsigned k = 0; k < CONFIG_T::n_chan; k++) {
                res[(i * CONFIG_T::n_rows + j) * CONFIG_T::n_chan + k] =
                    first[i * CONFIG_T::n_chan + k] + second[j * CONFIG_T::n_chan + k];
            }
        }
    }
}

} // namespace nnet

#endif
