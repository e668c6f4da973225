cpdef object batch_norm(
    input, running_mean, running_var, weight, bias, training, momentum, eps, data_format, out, activation, residual,
    moments, counter)
cpdef object group_norm(
    input, num_groups, weight, bias, eps, data_format, out, activation, residual, scale, shift, moments)
cpdef object layer_norm(
    input, normalized_shape, weight, bias, eps, out, activation, residual, scale, shift, moments)
cpdef object rms_norm(
    input, normalized_shape, weight, bias, eps, unit_offset, out, activation, residual, scale, shift, moments)
cpdef object instance_norm(
    input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps, data_format, out, activation,
    residual, scale, shift, moments)
cpdef object add_layer_norm(
    input, residual, normalized_shape, weight, bias, eps, activation, out, sum_out)
cpdef object add_rms_norm(
    input, residual, normalized_shape, weight, eps, unit_offset, activation, out, sum_out)
